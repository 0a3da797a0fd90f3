"""Entries of `models` with weights as inits: what is taken for one, what is refused, what is noted before a run."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from octdino.config import Config, ModelSettings, load_config, notes_before_run
from octdino.config.models import published_input, starts_published
from octdino.config.published import finetune_bytes, transformer_size
from octdino.config.weights_layouts import LAYOUTS
from octdino.errors import UserError

RETFOUND = {"timm": "vit_large_patch16_224", "layout": "retfound_mae", "weights": "retfound.pth"}
ARMS = ["scratch-finetune", "retfound-linear", "retfound-finetune"]


def config(models: dict[str, Any], arms: list[str], **more: Any) -> Config:
    return load_config({"models": models, "classify": {"arms": arms, **more.pop("classify", {})}, **more})


def test_an_arm_starts_from_an_entry_on_its_own_backbone_without_any_pretraining() -> None:
    found = config({"retfound": RETFOUND}, ARMS)
    assert found.published_inits == ["retfound"]
    assert found.pretrain.methods == []
    assert found.backbones_of("retfound") == ["retfound"]
    assert found.backbones_of("scratch") == ["resnet18"]
    assert found.models["retfound"].args == {"global_pool": "avg"}
    assert published_input(found.models["retfound"]).size == 224


def test_settings_of_the_entry_go_before_those_of_the_layout() -> None:
    own = RETFOUND | {"args": {"global_pool": "token"}, "input_size": 96, "mean": [0.5], "std": [0.25], "license": "x"}
    model = ModelSettings(**own)
    assert (model.args, model.weights_license) == ({"global_pool": "token"}, "x")
    assert published_input(model) == (96, (0.5,), (0.25,))


def test_without_new_settings_an_entry_is_dumped_as_before() -> None:
    assert ModelSettings(timm="resnet18").model_dump(mode="json") == {"timm": "resnet18", "args": {}, "weights": None}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"timm": "resnet18"}, r"models.retfound.timm: resnet18 is no network of the layout retfound_mae, such"),
        ({"weights": None}, r"models.retfound.weights: missing; the layout retfound_mae needs a local file"),
        ({"input_size": 100}, r"models.retfound.input_size: 100 px; .* takes multiples of 16, such as 96"),
        ({"mean": [0.5]}, r"models.retfound.std: missing; give mean and std together"),
        ({"mean": [0.5, 0.5], "std": [1, 1]}, r"models.retfound.mean: 2 values and 2 of std; expected 1 or 3"),
        ({"mean": [0.5], "std": [0.0]}, r"models.retfound.std: 0.0; expected numbers above 0"),
        ({"layout": "retfound"}, r"models.retfound.layout: 'retfound' is not allowed"),
    ],
)  # fmt: skip
def test_entries_that_cannot_be_are_refused_in_one_line(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config({"retfound": RETFOUND | entry}, ARMS)
    assert "\n" not in str(caught.value)


def test_a_dinov3_network_takes_multiples_of_its_patches_too() -> None:
    entry = {"timm": "vit_small_patch16_dinov3", "layout": "dinov3", "weights": "w.pth", "input_size": 100}
    with pytest.raises(UserError, match=r"models.dinov3.input_size: 100 px; .* multiples of 16"):
        config({"dinov3": entry}, ["scratch-finetune", "dinov3-linear"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pretrain": {"augment": {"global_size": 100}}}, r"pretrain.augment.global_size: 100 px; dinov3 takes"),
        ({"classify": {"augment": {"global_size": 100}}}, r"classify.augment.global_size: 100 px; dinov3 takes"),
        ({"embed": {"size": 100}}, r"embed.size: 100 px; dinov3 takes"),
    ],
)
def test_patches_divide_views_and_inputs_of_a_pretraining_that_continues(more: dict[str, Any], message: str) -> None:
    """Its backbone is not among pretrain.backbones, and is no VisionTransformer of timm."""
    entry = {"timm": "vit_small_patch16_dinov3", "layout": "dinov3", "weights": "w.pth"}
    pretrain = {"variants": {"more": {"method": "simclr", "init": "dinov3"}}, **more.pop("pretrain", {})}
    with pytest.raises(UserError, match=message):
        config({"dinov3": entry}, ["scratch-finetune", "more-linear"], pretrain=pretrain, **more)


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"auto", "timm"}))
def test_layouts_of_other_projects_need_a_file(layout: str) -> None:
    entry = {"timm": LAYOUTS[layout].example or "vit_tiny_patch16_224", "layout": layout}
    with pytest.raises(UserError, match=rf"models.own.weights: missing; the layout {layout} needs a local file"):
        config({"own": entry}, ["scratch-finetune", "own-linear"])


def test_timm_downloads_its_own_layout() -> None:
    found = config({"own": {"timm": "vit_tiny_patch16_224", "layout": "timm"}}, ["scratch-finetune", "own-linear"])
    assert found.published_inits == ["own"]


def test_a_run_depends_only_on_the_settings_of_an_entry_that_it_uses() -> None:
    own = ModelSettings(**RETFOUND, input_size=96, mean=[0.5], std=[0.25], license="x")
    unset = ModelSettings(**RETFOUND)
    assert own.needed() == unset.model_copy(update={"layout": "auto"})
    assert own.needed(as_imagenet=True) == unset
    assert own.needed(as_start=True) == unset.model_copy(update={"license": "x"})
    assert own.needed(as_init=True) == own


@pytest.mark.parametrize(
    ("init", "pretrained", "expected"),
    [("own", False, True), ("own", True, False), ("scratch", False, False), ("imagenet", False, False),
     ("dino", False, False)],
)  # fmt: skip
def test_a_network_starts_from_published_weights_by_the_name_of_its_entry(
    init: str, pretrained: bool, expected: bool
) -> None:
    model = ModelSettings(timm="resnet18", weights=Path("w.pth"))
    assert starts_published(init, model, pretrained=pretrained) is expected
    assert not starts_published(init, ModelSettings(timm="resnet18"), pretrained=pretrained)


def test_a_name_that_is_a_methods_is_no_init_of_weights() -> None:
    entry = {"timm": "vit_small_patch14_dinov2", "weights": "w.pth"}
    with pytest.raises(
        UserError, match=r"models.dinov2: .* the pretraining method dinov2, .* such as dinov2_published"
    ):
        config({"dinov2": entry}, ["scratch-finetune", "dinov2-linear"])


def test_an_init_that_is_neither_method_nor_entry_is_refused() -> None:
    with pytest.raises(UserError, match=r"'mirage' is no method; .* or one of models with weights"):
        config({"retfound": RETFOUND, "mirage": {"timm": "vit_base_patch32_224"}}, ["retfound-linear", "mirage-linear"])


def test_a_variant_continues_from_an_entry_on_its_backbone_alone() -> None:
    variants = {"more": {"method": "simclr", "init": "retfound"}}
    found = config({"retfound": RETFOUND}, ["scratch-finetune", "more-linear"], pretrain={"variants": variants})
    explicit = {"more": variants["more"] | {"backbones": ["retfound"]}}
    assert found == config({"retfound": RETFOUND}, found.classify.arms, pretrain={"variants": explicit})
    assert found.pretrain.methods == ["more"]
    assert found.backbones_of("more") == ["retfound"]
    assert found.pretrain.backbones == ["resnet18"]
    variant = found.pretrain.variant("more")
    assert variant.starts_from_file("retfound")
    assert variant.start_folder("retfound", 0, 0) is None


def test_adapters_are_of_arms_of_the_run() -> None:
    with pytest.raises(UserError, match=r"classify.lora: retfound-finetune not among classify.arms"):
        config({"retfound": RETFOUND}, ARMS[:2], classify={"lora": ["retfound-finetune"]})


def test_fine_tuning_a_large_network_is_noted_with_its_memory(tmp_path: Path) -> None:
    found = config({"retfound": RETFOUND}, ARMS)
    noted = [note for note in notes_before_run(found, results=tmp_path) if "GPU memory" in note]
    assert len(noted) == 1
    assert noted[0].startswith("classify.arms: retfound-finetune: about 11 GB of GPU memory for 302 million parameters")
    adapted = config({"retfound": RETFOUND}, ARMS, classify={"lora": ["retfound-finetune"]})
    full, low = finetune_bytes(found, "retfound"), finetune_bytes(adapted, "retfound")
    assert full is not None
    assert low is not None
    assert full - low == 12 * 12 * 1024**2 * 24  # gradients and moments of the blocks


def test_the_size_of_a_transformer_is_that_of_timms_network() -> None:
    for name in ("vit_base_patch32_224", "vit_large_patch16_224", "vit_large_patch16_dinov3"):
        size = transformer_size(ModelSettings(timm=name))
        assert size is not None
        with torch.device("meta"):
            network = timm.create_model(name, num_classes=0)
        parameters = sum(each.numel() for each in network.blocks.parameters())
        assert abs(parameters - size.parameters) < 0.01 * parameters
