"""Names of tensors in Hugging Face transformers' vision transformers (ViT, ViTMAE, Dinov2, DINOv3) as their projects'.

Contents of config.json that the tensors do not show, such as the number of heads, are compared here, too.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.config.preprocessor import read_json_object
from octdino.errors import UserError, short

Tensors = dict[str, Tensor]
LAYER = re.compile(r"(?:encoder\.|model\.)*layer\.(\d+)\.")
DROPPED = ("classifier.", "pooler.", "decoder.", "layernorm_pooler.", "head.")
NAMES = (  # below a layer; query, key and value are joined before
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"attention\.o_proj\.", "attn.proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"^output\.dense\.", "mlp.fc2."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"mlp\.weights_in\.", "mlp.w12."),
    (r"mlp\.weights_out\.", "mlp.w3."),
)
GATED = ((r"mlp\.gate_proj\.", "mlp.w1."), (r"mlp\.up_proj\.", "mlp.w2."), (r"mlp\.down_proj\.", "mlp.w3."))
PLAIN = ((r"mlp\.up_proj\.", "mlp.fc1."), (r"mlp\.down_proj\.", "mlp.fc2."))  # DINOv3's without a gate
PARTS = re.compile(r"attention\.(?:attention\.)?(query|key|value|q_proj|k_proj|v_proj)\.(weight|bias)$")
EPSILON_TOLERANCE = 1e-6
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # transformers' names
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}
OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.mask_token": "mask_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.patch_embeddings.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}


def from_huggingface(tensors: Tensors) -> tuple[Tensors, set[str]]:
    """Return the tensors under the names of the network's own project, and the first parts of dropped names."""
    kept = {key: each for key, each in tensors.items() if not key.startswith(DROPPED)}
    dropped = {key.split(".")[0] for key in tensors.keys() - kept.keys()}
    third = any(".o_proj." in key for key in kept)  # DINOv3
    gated = any(".gate_proj." in key for key in kept)
    named: Tensors = {}
    joined: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, each in kept.items():
        place = LAYER.match(key)
        if place is None:
            named[_outside(key, third)] = each
            continue
        block, inner = f"blocks.{place[1]}.", key[place.end() :]
        if part := PARTS.match(inner):
            joined.setdefault((block, part[2]), {})[part[1][0]] = each
            continue
        for pattern, name in (*NAMES, *(GATED if gated else PLAIN)):
            inner = re.sub(pattern, name, inner)
        named[block + inner] = each
    for (block, kind), parts in joined.items():
        some = next(iter(parts.values()))
        named[f"{block}attn.qkv.{kind}"] = torch.cat([parts.get(part, torch.zeros_like(some)) for part in "qkv"])
    if not third and "register_tokens" in named and "mask_token" not in named:
        named["mask_token"] = torch.zeros_like(named["cls_token"])  # by which timm's filter recognizes DINOv2
    return named, dropped


def _outside(key: str, third: bool) -> str:
    """Return the project's name of a tensor outside of the layers; `third`: of DINOv3."""
    if key == "embeddings.register_tokens":
        return "storage_tokens" if third else "register_tokens"
    return OUTSIDE.get(key, key)


def check_config(path: Path, backbone: nn.Module) -> None:
    """Check that a folder's config.json is of the backbone: sizes, rotary base, activation, epsilon of layer norms.

    Raises:
        UserError: it is missing, no JSON object, or of another network.
    """
    config = read_json_object(path, "the config.json beside the weights")
    for key, expected in _known(backbone).items():
        found = config.get(key)
        if key == "rope_theta" and isinstance(config.get("rope_parameters"), dict):
            found = config["rope_parameters"].get(key, found)
        if found is not None and found != expected:
            raise UserError(f"{path}: {key} is {short(found)}, {expected} in the backbone; expected its timm model")
    _check_epsilon(path, config.get("layer_norm_eps"), backbone)
    if not config.get("use_swiglu_ffn"):  # of Dinov2: its MLP is gated by SiLU, with any hidden_act
        _check_activation(path, config.get("hidden_act"), backbone)


def _check_epsilon(path: Path, found: Any, backbone: nn.Module) -> None:
    """Check the epsilon of layer norms; transformers' ViT has 1e-12 where timm's has 1e-6, which changes no feature."""
    blocks: Any = backbone.blocks
    expected = getattr(blocks[0].norm1, "eps", None)
    if found is None or expected is None:
        return
    if not isinstance(found, float) or abs(found - expected) > EPSILON_TOLERANCE:
        raise UserError(
            f"{path}: layer_norm_eps is {short(found)}, {expected:g} in the backbone; expected a timm model that has "
            f"that of the file within {EPSILON_TOLERANCE:g}"
        )


@torch.no_grad()
def _check_activation(path: Path, found: Any, backbone: nn.Module) -> None:
    """Check the activation function of the MLPs by its values."""
    blocks: Any = backbone.blocks
    act = getattr(blocks[0].mlp, "act", None)
    if found is None or act is None:
        return
    points = torch.linspace(-4, 4, 81)
    values = act(points.clone())
    same = [name for name, function in ACTIVATIONS.items() if torch.allclose(function(points), values, atol=1e-5)]
    if found not in same:
        expected = " or ".join(same) or f"that of {type(act).__name__}"
        raise UserError(
            f"{path}: hidden_act is {short(found)}, {expected} in the backbone; expected args with another act_layer, "
            "or the timm model of the file"
        )


def _known(backbone: nn.Module) -> dict[str, Any]:
    """Return the values of config.json that a backbone requires, by key."""
    blocks: Any = backbone.blocks
    patches: Any = backbone.patch_embed
    known = {
        "hidden_size": backbone.embed_dim,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": blocks[0].attn.num_heads,
        "patch_size": patches.patch_size[0],
    }
    temperature = getattr(getattr(backbone, "rope", None), "temperature", None)
    return known if temperature is None else known | {"rope_theta": temperature}
