"""Weights from outside: the backbone computes what the network computes that the file was written from."""

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from octdino.config import ModelSettings
from octdino.data.schemas.metadata import BackboneSpec
from octdino.models.backbones import create_backbone, save_backbone
from octdino.models.weights import _load, _recognized
from tests.small import BACKBONE_CARD

SIZE = 32
VIT = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}
NARROW = {"channels": [8, 8, 16, 16]}


class ReferenceBlock(nn.Module):
    """A block under the names of the reference DINO; with layer scale, of DINOv2."""

    def __init__(self, scale: bool) -> None:
        super().__init__()
        dim = 16
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 2 * dim), "fc2": nn.Linear(2 * dim, dim)})
        self.ls1, self.ls2 = nn.Module(), nn.Module()
        for layer in (self.ls1, self.ls2) if scale else ():
            layer.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        mixed = self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + mixed * getattr(self.ls1, "gamma", 1)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))) * getattr(self.ls2, "gamma", 1)


class ReferenceViT(nn.Module):
    """Caron et al. 2021's transformer; with `v2` Oquab et al. 2023's, with registers Darcet et al. 2023's."""

    def __init__(self, v2: bool = False, registers: int = 0) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, 16, 8, 8)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, 16))
        if v2:
            self.mask_token = nn.Parameter(torch.zeros(1, 16))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, 16))
        self.blocks = nn.ModuleList([ReferenceBlock(v2) for _ in range(3)])
        self.norm = nn.LayerNorm(16, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        if hasattr(self, "register_tokens"):
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], 1)
        for block in self.blocks:
            x = block(x)
        first: Tensor = self.norm(x)[:, 0]
        return first


def randomised(network: nn.Module) -> nn.Module:
    """Every tensor random, those of batch norm's statistics and layer scale, too; evaluation mode."""
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "var" in key else torch.randn_like(value) * 0.2)
    return network.eval()


def tiny(name: str = "vit_tiny_patch16_224", **args: Any) -> ModelSettings:
    return ModelSettings(timm=name, args={**VIT, **args})


def torchvision_vit() -> nn.Module:
    return VisionTransformer(SIZE, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=7)


def torchvision_features(network: nn.Module, x: Tensor) -> Tensor:
    tokens = torch.cat([network.class_token.expand(len(x), -1, -1), network._process_input(x)], 1)
    first: Tensor = network.encoder(tokens)[:, 0]
    return first


def resnet_features(network: nn.Module, x: Tensor) -> Tensor:
    pooled: Tensor = nn.Sequential(*list(network.children())[:-1])(x).flatten(1)
    return pooled


def full(network: nn.Module) -> dict[str, Any]:
    """A training checkpoint as the reference DINO writes it: the student is another network."""

    def wrapped(state: dict[str, Tensor], before: str) -> dict[str, Tensor]:
        state = {f"{before}backbone.{key}": value for key, value in state.items()}
        head = {"mlp.0.weight": torch.randn(4, 16), "last_layer.weight_g": torch.ones(4, 1)}
        return state | {f"{before}head.{key}": value for key, value in head.items()}

    teacher = network.state_dict()
    student = {key: torch.randn(value.shape) for key, value in teacher.items()}
    optimizer = torch.optim.AdamW(network.parameters()).state_dict()
    arguments = argparse.Namespace(arch="vit_small", lr=0.0005, data_path="/data", global_crops_scale=(0.4, 1.0))
    return {
        "student": wrapped(student, "module."), "teacher": wrapped(teacher, ""), "optimizer": optimizer, "epoch": 3,
        "args": arguments, "dino_loss": {"center": torch.zeros(1, 4)},
    }  # fmt: skip


def case(name: str) -> tuple[nn.Module, Any, Any, ModelSettings]:
    """The network a file is written from, its features, what the file holds, and the backbone that reads it."""
    torch.manual_seed(0)
    kind, _, way = name.partition(" ")
    if kind == "resnet18":
        network = randomised(torchvision.models.resnet18(weights=None, num_classes=5))
        state, model = network.state_dict(), ModelSettings(timm="resnet18")
        headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
        bare = nn.Sequential(*list(network.children())[:-1]).state_dict()
        data = {
            "torchvision": state, "dino": headless,
            "old": {key: value for key, value in state.items() if "num_batches" not in key},
            "lightly": {"state_dict": {f"backbone.{k}": v for k, v in bare.items()}, "hyper_parameters": {"lr": 0.1}},
            "moco": {"state_dict": {f"module.encoder_{who}.{k}": v * factor for who, factor in (("k", 0.5), ("q", 1.0))
                                    for k, v in state.items()}},
        }  # fmt: skip
        return network, lambda x: resnet_features(network, x), data[way], model
    if kind == "torchvision":
        network = randomised(torchvision_vit())
        state = network.state_dict()
        old = {k.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): v for k, v in state.items()}
        return network, lambda x: torchvision_features(network, x), old if way == "old" else state, tiny()
    if kind == "timm":
        network = randomised(timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=9, **VIT))
        state = network.state_dict()
        ema = {"state_dict": {k: v + 1 for k, v in state.items()}, "state_dict_ema": state, "arch": "vit", "epoch": 3}
        module = {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}}
        return network, lambda x: network.forward_head(network.forward_features(x), True), {
            "plain": state, "ema": ema, "ddp": module, "state_dict": {"state_dict": state},
        }[way], tiny()  # fmt: skip
    registers = 4 if "registers" in way else 0
    network = randomised(ReferenceViT(v2=kind == "dinov2", registers=registers))
    state = network.state_dict()
    if kind == "dino":
        return network, network, full(network) if way == "full" else state, tiny()
    chunks = {(f"blocks.0{key.removeprefix('blocks')}" if "blocks" in key else key): v for key, v in state.items()}
    data = {"teacher": {f"backbone.{k}": v for k, v in chunks.items()}} if "trainer" in way else state
    reg = {"no_embed_class": True, "reg_tokens": registers} if registers else {}
    return network, network, data, tiny("vit_small_patch14_dinov2", **VIT, **reg)


def written(folder: Path, data: Any) -> Path:
    torch.save(data, folder / "w.pth")
    return folder / "w.pth"


CASES = [
    "resnet18 torchvision", "resnet18 dino", "resnet18 old", "resnet18 lightly", "resnet18 moco",
    "torchvision vit", "torchvision old", "timm plain", "timm ema", "timm ddp", "timm state_dict",
    "dino backbone", "dino full", "dinov2 plain", "dinov2 registers", "dinov2 registers trainer",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_backbone_computes_what_the_original_computes(tmp_path, name):
    _, features, data, model = case(name)
    model = model.model_copy(update={"weights": written(tmp_path, data)})
    x = torch.randn(2, 3, SIZE, SIZE)
    colour = create_backbone(model, 3, SIZE, imagenet=True).eval()
    torch.testing.assert_close(colour(x), features(x), atol=1e-5, rtol=1e-5)
    grey, one = create_backbone(model, 1, SIZE, imagenet=True).eval(), x[:, :1]
    torch.testing.assert_close(grey(one), features(one.repeat(1, 3, 1, 1)), atol=2e-5, rtol=1e-4)
    assert not torch.allclose(colour(x)[0], colour(x)[1])


@torch.no_grad()
def test_safetensors_and_octdinos_own_files_are_read(tmp_path):
    _, features, state, model = case("timm plain")
    save_file(state, tmp_path / "model.safetensors")
    x = torch.randn(2, 3, SIZE, SIZE)
    read = create_backbone(model.model_copy(update={"weights": tmp_path / "model.safetensors"}), 3, SIZE, imagenet=True)
    torch.testing.assert_close(read.eval()(x), features(x))
    spec = BackboneSpec(timm=model.timm, args=model.args, in_chans=1, size=SIZE)
    own = randomised(create_backbone(model, 1, SIZE))
    save_backbone(tmp_path, own, spec, BACKBONE_CARD)
    model = model.model_copy(update={"weights": tmp_path / "backbone.safetensors"})
    again = create_backbone(model, 1, SIZE, imagenet=True)
    torch.testing.assert_close(again.eval()(x[:, :1]), own(x[:, :1]))


@pytest.mark.parametrize("name", ["dino backbone", "dino full", "torchvision vit", "dinov2 registers"])
@torch.no_grad()
def test_other_sizes_have_their_position_embeddings_resampled(tmp_path, name):
    _, _, data, model = case(name)
    model = model.model_copy(update={"weights": written(tmp_path, data)})
    same, large = (create_backbone(model, 1, size, imagenet=True).eval() for size in (SIZE, 64))
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(large(x), same(x), atol=1e-5, rtol=1e-5)  # beforehand, or when it sees the image
    assert large(x[:, :, :48, :48]).shape == (2, 16)
    assert large.pos_embed.shape[1] > same.pos_embed.shape[1]


@pytest.mark.parametrize(
    ("ours", "name"),
    [("resnet18", "resnet18"), ("resnet34", "resnet34"), ("resnet50", "resnet50"), ("resnet101", "resnet101"),
     ("vit_base_patch16_224", "vit_b_16"), ("vit_large_patch16_224", "vit_l_16")],
)  # fmt: skip
def test_torchvisions_whole_models_fit_timms(ours, name):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)(weights=None).state_dict()
        backbone = create_backbone(ModelSettings(timm=ours), 3, 224)
        _load(backbone, _recognized(state, backbone)[2], name, ours, set())


def test_what_was_read_and_dropped_is_told(tmp_path, caplog):
    _, _, data, model = case("dino full")
    model = model.model_copy(update={"weights": written(tmp_path, data)})
    with caplog.at_level(logging.INFO, "octdino.models"):
        create_backbone(model, 1, 64, imagenet=True)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "octdino.models"]
    count = len(create_backbone(model, 1, 64).state_dict())
    assert f"(timm's names, its 'teacher', below 'backbone.'): all {count} tensors" in line
    assert "dropped: head; fitted to the input: pos_embed, patch_embed.proj.weight" in line
