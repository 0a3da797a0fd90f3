"""The table of timm's models: that of the installed timm, and what is refused with it before any job."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from octdino.config import ModelSettings, load_config
from octdino.config.timm_models import check_timm_model, find_timm_model, may_mask_patches, patch_sides
from octdino.errors import UserError
from octdino.models.backbones import create_backbone, timm_arguments
from octdino.models.timm_registry import timm_table_text

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "octdino/config/timm_models.json"


def message(name: str, **args: Any) -> str:
    with pytest.raises(ValueError, match="timm") as error:
        check_timm_model(ModelSettings(timm=name, args=args))
    return str(error.value)


def test_the_table_is_that_of_the_installed_timm() -> None:
    assert TABLE.read_text() == timm_table_text(), "make schema"
    models = json.loads(TABLE.read_text())["models"]
    assert set(timm.list_models()) <= set(models)
    for name in timm.list_pretrained():
        arch, _, tag = name.partition(".")
        assert tag in models[arch][2] or not tag


def test_unknown_models_tags_and_arguments_are_refused_with_similar_ones() -> None:
    assert message("resnet81") == "'resnet81' is no timm model; similar: resnet18, resnet61q, resnet51q"
    assert message("resnet18.a1_in1").startswith("timm's resnet18 has no weights 'a1_in1'; similar: a1_in1k")
    assert message("resnet18", chanels=[8]) == (
        "args.chanels: timm's resnet18 takes no such argument; similar: channels"
    )


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resnet18", {"channels": [8, 8, 8, 8]}),
        ("vit_tiny_patch16_224", {"patch_size": 8, "dynamic_img_size": True}),
        ("efficientnet_b0", {"drop_path_rate": 0.1, "bn_eps": 1e-3}),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}),
        ("regnety_002", {"zero_init_last": False}),  # a class that passes any keyword on
    ],
)
def test_what_timm_takes_is_not_refused(name: str, args: dict[str, Any]) -> None:
    model = ModelSettings(timm=name, args=args)
    check_timm_model(model)
    create_backbone(model, 1, 32)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_b0", "mobilenetv3_small_050"])
def test_what_is_refused_timm_refuses(name: str) -> None:
    message(name, no_such_argument=1)
    with pytest.raises(UserError, match="no_such_argument"):
        create_backbone(ModelSettings(timm=name, args={"no_such_argument": 1}), 1, 32)


def test_another_installed_timm_decides_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    check_timm_model(ModelSettings(timm="resnet1234"))


def test_patches_are_those_of_transformers() -> None:
    assert patch_sides(ModelSettings(timm="resnet18")) == ()
    assert patch_sides(ModelSettings(timm="vit_small_patch14_dinov2")) == (14, 14)
    assert patch_sides(ModelSettings(timm="vit_tiny_patch16_224", args={"patch_size": [8, 4]})) == (8, 4)
    assert patch_sides(ModelSettings(timm="vit_base_r50_s16_224")) == ()  # patches of a ResNet's features
    assert patch_sides(ModelSettings(timm="vit_small_patch16_dinov3")) == (16, 16)
    assert patch_sides(ModelSettings(timm="vit_small_patch16_dinov3", args={"patch_size": 8})) == (8, 8)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("size", [64, 72])
def test_inputs_that_patches_do_not_divide_are_those_that_timm_refuses(name: str, size: int) -> None:
    model = ModelSettings(timm=name, args={"depth": 1})
    network = timm.create_model(name, num_classes=0, **timm_arguments(model, 64)).eval()
    fits = not any(size % side for side in patch_sides(model))
    with nullcontext() if fits else pytest.raises(AssertionError):
        network(torch.zeros(1, 3, size, size))


def test_only_vision_transformers_may_mask_patches() -> None:
    assert may_mask_patches(ModelSettings(timm="vit_tiny_patch16_224"))
    assert not may_mask_patches(ModelSettings(timm="vit_small_patch16_dinov3"))
    assert not may_mask_patches(ModelSettings(timm="resnet18"))
    assert may_mask_patches(ModelSettings(timm="of_another_timm"))
    assert find_timm_model("hf_hub") is None


def test_every_preset_has_models_that_timm_has() -> None:
    presets = [ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")]
    for path in presets:
        values = yaml.safe_load(path.read_text()) or {}
        if path.stem == "olives-published":  # laid over olives.yaml
            continue
        if path.stem == "folder":  # laid under a user's file
            values["cohort"]["root"] = "scans"
        load_config(values, path.name)
