"""Low-rank adapters: they alone are trained beside the head, begin without an effect, and are merged at the end."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from octdino.classify.train_arm import classify as train_arm
from octdino.config import ClassifySettings, ModelSettings
from octdino.errors import UserError
from octdino.models.adapters import add_adapters, merge_adapters
from octdino.models.backbones import create_backbone
from tests.classify.test_classify import SETTINGS
from tests.models.published import ARGS, SIDE, checkpoint, model_of
from tests.small import write_small_cohort

VIT = ModelSettings(timm="vit_tiny_patch16_224", args=ARGS)
ROTARY = ModelSettings(timm="vit_small_patch16_dinov3_qkvb", args={**ARGS, "global_pool": "token", "init_values": 1.0})


def adapted(model: ModelSettings, rank: int = 2) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    """A backbone with adapters, its weights before, and its features before on fixed images."""
    torch.manual_seed(0)
    network = create_backbone(model, 1, SIDE).eval()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    features = network(images()).detach()
    add_adapters(network, rank, 1, SIDE, seed=0)
    return network, before, features


def images() -> Tensor:
    return torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", [VIT, ROTARY], ids=["vit", "rotary"])
def test_adapters_begin_without_effect_and_merge_to_the_same_features(model: ModelSettings) -> None:
    network, before, features = adapted(model)
    torch.testing.assert_close(network(images()), features)
    trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    for each in trained.values():
        nn.init.normal_(each, std=0.3)
    changed = network(images()).detach()
    assert (changed - features).abs().max() > 0.01
    merge_adapters(network)
    torch.testing.assert_close(network(images()), changed, rtol=1e-4, atol=1e-4)
    assert network.state_dict().keys() == before.keys()
    assert all(each.requires_grad for each in network.parameters())


def test_every_adapter_gets_a_gradient() -> None:
    """Also where timm reads a layer's weight itself, as DINOv3's attention with biases does: it has no adapter."""
    network, _, _ = adapted(ROTARY)
    network(images()).square().sum().backward()
    second = {name: each for name, each in network.named_parameters() if "lora_B" in name}
    assert second
    assert not [name for name, each in second.items() if each.grad is None or not each.grad.any()]
    assert not any(".qkv." in name for name in second)


def test_a_network_without_linear_layers_is_refused() -> None:
    network = create_backbone(ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 32]}), 1, SIDE)
    with pytest.raises(UserError, match=r"classify\.lora: the backbone has no linear layer; expected a transformer"):
        add_adapters(network, 2, 1, SIDE, seed=0)


def test_a_fine_tuned_arm_with_adapters_has_the_weights_of_a_plain_network(tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path / "cohort", patients=24)
    torch.save(checkpoint("retfound_mae"), tmp_path / "retfound.pth")
    model = ModelSettings(**model_of("retfound_mae", tmp_path / "retfound.pth"))
    settings = SETTINGS.model_copy(
        update={"lora": ["retfound-finetune"], "lora_rank": 2, "min_steps": [6], "epochs": 1}
    )
    found: dict[str, dict[str, Tensor]] = {}
    for name, chosen in (("lora", settings), ("full", settings.model_copy(update={"lora": []}))):
        train_arm(
            "retfound-finetune", chosen, fraction=1.0, fold=0, seed=0, store=store, backbone="retfound", model=model,
            out=tmp_path / name,
        )  # fmt: skip
        found[name] = load_file(tmp_path / name / "classifier.safetensors")
    assert found["lora"].keys() == found["full"].keys()
    first = checkpoint("retfound_mae")["model"]
    own = {name: each for name, each in found["lora"].items() if name.removeprefix("0.") in first}
    same = {name.removeprefix("0.") for name, each in own.items() if each.equal(first[name.removeprefix("0.")])}
    assert {"cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.1.attn.proj.bias"} <= same
    assert "blocks.0.attn.qkv.weight" not in same


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (["retfound-linear"], r"lora: .*is not \{init\}-finetune"),
        (["scratch-finetune"], r"lora: scratch-finetune starts from random weights"),
        (["a-finetune", "a-finetune"], r"lora: .*given 2 times"),
    ],
)
def test_only_fine_tuned_arms_of_trained_weights_have_adapters(lora: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClassifySettings.parse({"lora": lora}, "classify")


def test_an_arm_depends_on_adapters_only_where_it_has_them() -> None:
    plain: dict[str, Any] = ClassifySettings().needed("a-finetune")
    assert not {"lora", "lora_rank"} & plain.keys()
    chosen = ClassifySettings(lora=["a-finetune"], lora_rank=4)
    assert chosen.needed("b-finetune") == ClassifySettings().needed("b-finetune")
    assert chosen.needed("a-finetune") == plain | {"lora": ["a-finetune"], "lora_rank": 4}
