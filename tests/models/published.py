"""Checkpoints in the layouts of published networks, of small dimensions, and their forward passes in plain torch.

The forward passes follow the papers and what the projects' networks compute; they share no code with timm or octdino.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

DIM, DEPTH, HEADS, PATCH, SIDE = 32, 2, 2, 8, 32
GRID = SIDE // PATCH
Tensors = dict[str, Tensor]
TIMM: dict[str, dict[str, Any]] = {  # the small network of each layout
    "retfound_mae": {"timm": "vit_tiny_patch16_224"},
    "mirage": {"timm": "vit_tiny_patch16_224"},
    "dinov2": {"timm": "vit_small_patch14_dinov2"},
    "dinov2 registers": {"timm": "vit_small_patch14_reg4_dinov2"},
    "retfound_dinov2": {"timm": "vit_small_patch14_dinov2"},
    "dinov3": {"timm": "vit_small_patch16_dinov3_qkvb"},
}
ARGS = {"patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}


def model_of(layout: str, path: Path | None, **more: Any) -> dict[str, Any]:
    """An entry of `models` for a checkpoint of a layout."""
    entry = TIMM[layout] | {"layout": layout.split()[0], "weights": str(path) if path else None, "input_size": SIDE}
    return entry | {"args": ARGS | more.pop("args", {})} | more


def random_block(rng: torch.Generator, scale: bool) -> Tensors:
    """A block under MAE's and DINO's names; with layer scale, of DINOv2 and DINOv3."""
    shapes = {
        "norm1.weight": (DIM,), "norm1.bias": (DIM,), "norm2.weight": (DIM,), "norm2.bias": (DIM,),
        "attn.qkv.weight": (3 * DIM, DIM), "attn.qkv.bias": (3 * DIM,), "attn.proj.weight": (DIM, DIM),
        "attn.proj.bias": (DIM,), "mlp.fc1.weight": (4 * DIM, DIM), "mlp.fc1.bias": (4 * DIM,),
        "mlp.fc2.weight": (DIM, 4 * DIM), "mlp.fc2.bias": (DIM,),
    }  # fmt: skip
    if scale:
        shapes |= {"ls1.gamma": (DIM,), "ls2.gamma": (DIM,)}
    return {name: torch.randn(shape, generator=rng) * 0.3 for name, shape in shapes.items()}


def random_vit(seed: int, *, scale: bool = False, channels: int = 3) -> Tensors:
    """An encoder under MAE's and DINO's names, with class token and position embeddings."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {
        "cls_token": (1, 1, DIM), "pos_embed": (1, GRID**2 + 1, DIM), "norm.weight": (DIM,), "norm.bias": (DIM,),
        "patch_embed.proj.weight": (DIM, channels, PATCH, PATCH), "patch_embed.proj.bias": (DIM,),
    }  # fmt: skip
    own = {name: torch.randn(shape, generator=rng) * 0.3 for name, shape in shapes.items()}
    for index in range(DEPTH):
        own |= {f"blocks.{index}.{name}": each for name, each in random_block(rng, scale).items()}
    return own


def checkpoint(layout: str, seed: int = 0) -> dict[str, Any]:
    """What the file of a layout holds, with the parts beside the encoder that the projects' files have."""
    kind = layout.split()[0]
    own = random_vit(seed, scale=kind not in ("retfound_mae", "mirage"), channels=1 if kind == "mirage" else 3)
    if kind == "retfound_mae":
        decoder = {"mask_token": torch.ones(1, 1, 8), "decoder_embed.weight": torch.ones(8, DIM),
                   "decoder_pos_embed": torch.ones(1, 17, 8), "decoder_blocks.0.norm1.weight": torch.ones(8),
                   "decoder_norm.bias": torch.ones(8), "decoder_pred.weight": torch.ones(192, 8)}  # fmt: skip
        return {"model": own | decoder, "epoch": 799, "args": argparse.Namespace(model="mae_vit_large_patch16")}
    if kind == "mirage":
        return {"model": mirage(own), "args": argparse.Namespace(model="base", in_domains=["bscan", "slo"])}
    if kind == "dinov3":
        return dinov3(own)
    own["mask_token"] = torch.zeros(1, DIM)
    if "registers" in layout:
        own["register_tokens"] = torch.randn(1, 4, DIM, generator=torch.Generator().manual_seed(seed + 1))
    if kind == "retfound_dinov2":  # a checkpoint of DINOv2's trainer: chunks of blocks, heads beside the backbone
        named = {f"backbone.{name.replace('blocks.', 'blocks.0.')}": each for name, each in own.items()}
        return {"teacher": named | {"dino_head.mlp.0.weight": torch.ones(4, DIM)}, "iteration": 9}
    return own


def mirage(own: Tensors) -> Tensors:
    """MIRAGE's names: one global token without a position, an input adapter per modality, output adapters."""
    place = own["pos_embed"][:, 1:].transpose(1, 2).reshape(1, DIM, GRID, GRID)
    named = {"global_tokens": own["cls_token"]}
    for modality, factor in (("bscan", 1.0), ("slo", 2.0)):
        named |= {
            f"input_adapters.{modality}.pos_emb": place * factor,
            f"input_adapters.{modality}.proj.weight": own["patch_embed.proj.weight"] * factor,
            f"input_adapters.{modality}.proj.bias": own["patch_embed.proj.bias"] * factor,
        }
    named |= {name.replace("blocks", "encoder"): each for name, each in own.items() if name.startswith("blocks.")}
    return named | {"output_adapters.bscan.out_proj.weight": torch.ones(4, 8)}


def dinov3(own: Tensors) -> Tensors:
    """DINOv3's names: storage tokens, no position embeddings, rotary periods, masked key biases."""
    own = {name: each for name, each in own.items() if name != "pos_embed"}
    own["storage_tokens"] = torch.randn(1, 4, DIM, generator=torch.Generator().manual_seed(5))
    own["mask_token"] = torch.zeros(1, DIM)
    own["rope_embed.periods"] = 100.0 ** (2 * torch.arange(4) / 8)
    for index in range(DEPTH):
        mask = torch.ones(3 * DIM)
        mask[DIM : 2 * DIM] = 0
        own[f"blocks.{index}.attn.qkv.bias_mask"] = mask
    return own


def block(x: Tensor, own: Tensors, eps: float, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """One transformer block on [B, T, D]; `rope` is of the last tokens, the patches."""
    bias = own["attn.qkv.bias"] * own.get("attn.qkv.bias_mask", torch.ones(()))
    y = F.layer_norm(x, (DIM,), own["norm1.weight"], own["norm1.bias"], eps) @ own["attn.qkv.weight"].T + bias
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in y.chunk(3, -1))
    if rope is not None:
        q, k = rotated(q, *rope), rotated(k, *rope)
    weights = (q @ k.transpose(-1, -2) / math.sqrt(DIM / HEADS)).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).flatten(2) @ own["attn.proj.weight"].T + own["attn.proj.bias"]
    x = x + mixed * own.get("ls1.gamma", torch.ones(()))
    y = F.layer_norm(x, (DIM,), own["norm2.weight"], own["norm2.bias"], eps)
    y = F.gelu(y @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"]) @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]
    return x + y * own.get("ls2.gamma", torch.ones(()))


def rotated(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Rotary embedding of the last tokens of [B, heads, T, d]; pairs are the halves of a head."""
    first, last = x[:, :, : -len(sin)], x[:, :, -len(sin) :]
    half = last.shape[-1] // 2
    turned = torch.cat([-last[..., half:], last[..., :half]], -1)
    return torch.cat([first, last * cos + turned * sin], 2)


def axial_angles(periods: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine [patches, d] of DINOv3: centers of patches from -1 to 1, rows before columns."""
    centers = 2 * (torch.arange(GRID) + 0.5) / GRID - 1
    places = torch.stack(torch.meshgrid(centers, centers, indexing="ij"), -1).flatten(0, 1)  # [patches, 2]
    angles = (2 * math.pi * places[:, :, None] / periods.float()).flatten(1).tile(2)
    return angles.sin(), angles.cos()


def patches(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[B, C, S, S] to [B, patches, D]: each patch times the projection."""
    cut = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # [B, C, rows, columns, P, P]
    return torch.einsum("bcyxij,dcij->byxd", cut, weight).flatten(1, 2) + bias


def below(own: Tensors, prefix: str) -> Tensors:
    """The tensors below a prefix."""
    return {name.removeprefix(prefix): each for name, each in own.items() if name.startswith(prefix)}


def forward(layout: str, saved: dict[str, Any], images: Tensor, pool: str = "token") -> Tensor:
    """Pooled features [B, D] of images standardized as the published network takes them.

    Args:
        pool: of RETFound: token, the norm of the class token; avg, a new norm of the mean over patches.
    """
    kind = layout.split()[0]
    own: Tensors = saved.get("model", saved)
    if kind == "retfound_dinov2":
        own = {
            name.replace("blocks.0.", "blocks."): each for name, each in below(saved["teacher"], "backbone.").items()
        }
    batch = len(images)
    if kind == "mirage":
        adapter = below(own, "input_adapters.bscan.")
        x = patches(images, adapter["proj.weight"], adapter["proj.bias"]) + adapter["pos_emb"].flatten(2).mT
        x = torch.cat([x, own["global_tokens"].expand(batch, -1, -1)], 1)  # last, as there
        for index in range(DEPTH):
            x = block(x, below(own, f"encoder.{index}."), 1e-6)
        return F.layer_norm(x, (DIM,), eps=1e-6)[:, :-1].mean(1)
    x = patches(images, own["patch_embed.proj.weight"], own["patch_embed.proj.bias"])
    first, rope, eps = own["cls_token"].expand(batch, -1, -1), None, 1e-6
    if kind == "dinov3":
        rope, eps = axial_angles(own["rope_embed.periods"]), 1e-5
        x = torch.cat([first, own["storage_tokens"].expand(batch, -1, -1), x], 1)
    else:
        x = torch.cat([first, x], 1) + own["pos_embed"]
        if "register_tokens" in own:
            x = torch.cat([x[:, :1], own["register_tokens"].expand(batch, -1, -1), x[:, 1:]], 1)
    for index in range(DEPTH):
        x = block(x, below(own, f"blocks.{index}."), eps, rope)
    if pool == "avg":
        return F.layer_norm(x[:, 1:].mean(1), (DIM,), eps=eps)
    return F.layer_norm(x[:, 0], (DIM,), own["norm.weight"], own["norm.bias"], eps)


def write_huggingface(folder: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    """A folder as transformers' save_pretrained writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder
