"""Readers of published weights: from a project's names of tensors to those that timm's filters and networks take.

Each takes the state dict of a file and the backbone, and returns the tensors under the new names and the first parts of
the names that it dropped. What is missing or left over is refused afterwards, by `octdino.models.weights`: a reader
drops only what carries no features (decoders, heads, mask tokens, other modalities).

Names were read in the projects' code: RETFound https://github.com/rmaphoh/RETFound_MAE, MIRAGE
https://github.com/j-morano/MIRAGE, DINOv3 https://github.com/facebookresearch/dinov3.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from octdino.errors import UserError
from octdino.models.huggingface_names import from_huggingface

Tensors = dict[str, Tensor]
Reader = Callable[[Tensors, nn.Module, str], tuple[Tensors, set[str]]]
BSCAN = "bscan"  # MIRAGE's name of OCT B-scans
PERIODS_TOLERANCE = 0.01  # relative; published periods are rounded to bfloat16


def below(tensors: Tensors, anchor: str, layout: str, where: str) -> Tensors:
    """Return the tensors below the prefix at which the tensor `anchor` is; the shortest such prefix.

    Raises:
        UserError: there is no such tensor.
    """
    prefixes = [key.removesuffix(anchor) for key in tensors if key.endswith(anchor)]
    prefixes = sorted((prefix for prefix in prefixes if not prefix or prefix.endswith(".")), key=len)
    if not prefixes:
        some = ", ".join(sorted(tensors)[:3])
        raise UserError(f"{where}: no tensor {anchor}, which weights of the layout {layout} have; it has {some}, …")
    return {key.removeprefix(prefixes[0]): each for key, each in tensors.items() if key.startswith(prefixes[0])}


def split_off(tensors: Tensors, *first: str) -> tuple[Tensors, set[str]]:
    """Return the tensors without those whose name begins with one of `first`, and the first parts of these names."""
    kept = {key: each for key, each in tensors.items() if not key.startswith(first)}
    return kept, {key.split(".")[0] for key in tensors.keys() - kept.keys()}


def from_retfound_mae(tensors: Tensors, backbone: nn.Module, where: str) -> tuple[Tensors, set[str]]:
    """Return the encoder of RETFound's masked autoencoder, which is MAE's; decoder and mask token are dropped.

    Where the backbone pools patches and then norms (`global_pool: avg`), as RETFound's own fine-tuning does, the norm
    of the autoencoder has no place: `fc_norm` is that of a fine-tuned file, or begins at weight 1 and bias 0.

    Raises:
        UserError: there is no such encoder.
    """
    own, dropped = split_off(
        below(tensors, "patch_embed.proj.weight", "RETFound (MAE)", where), "decoder_", "mask_token"
    )
    if "blocks.0.attn.qkv.weight" not in own or "pos_embed" not in own:
        raise UserError(f"{where}: no encoder of MAE: expected blocks.0.attn.qkv.weight and pos_embed")
    if "fc_norm.weight" in backbone.state_dict():
        own, norm = split_off(own, "norm.")
        dropped |= norm
        if "fc_norm.weight" not in own:
            own |= {"fc_norm.weight": torch.ones(width_of(own)), "fc_norm.bias": torch.zeros(width_of(own))}
    return own, dropped


def from_mirage(tensors: Tensors, backbone: nn.Module, where: str) -> tuple[Tensors, set[str]]:
    """Return MIRAGE's encoder with the input adapter of OCT B-scans; other modalities and output adapters are dropped.

    The encoder has no norm at its end; MIRAGE's classifier begins with a new one, here weight 1 and bias 0.

    Raises:
        UserError: no input adapter of B-scans, or position embeddings that are not those of a square image.
    """
    found = below(tensors, "global_tokens", "MIRAGE", where)
    adapter = f"input_adapters.{BSCAN}."
    if f"{adapter}proj.weight" not in found:
        others = sorted({key.split(".")[1] for key in found if key.startswith("input_adapters.")})
        raise UserError(
            f"{where}: no input adapter {BSCAN} (OCT B-scans); it has {', '.join(others) or 'none'}; expected the "
            "weights of MIRAGE with B-scans"
        )
    own = {key.removeprefix(adapter): each for key, each in found.items() if key.startswith(adapter)}
    place = own.pop("pos_emb", None)
    if place is None or place.ndim != 4 or place.shape[2] != place.shape[3]:
        raise UserError(f"{where}: {adapter}pos_emb: expected [1, D, h, w] of a square image")
    named = {
        "cls_token": found["global_tokens"],
        "pos_embed": place.flatten(2).transpose(1, 2),
        **{f"patch_embed.{key}": each for key, each in own.items()},
        **{f"blocks.{key.removeprefix('encoder.')}": found[key] for key in found if key.startswith("encoder.")},
    }
    rest, dropped = split_off(found, "encoder.", "global_tokens", adapter)
    rest, beside = split_off(rest, "input_adapters.", "output_adapters.")
    if "norm.weight" in backbone.state_dict():
        width = found["global_tokens"].shape[-1]
        named |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    return named | rest, (dropped - {"encoder", "global_tokens", "input_adapters"}) | beside


def from_dinov3(tensors: Tensors, backbone: nn.Module, where: str) -> tuple[Tensors, set[str]]:
    """Return DINOv3's vision transformer or ConvNeXt, whose names timm's filter changes.

    Biases of keys are masked and dropped, as DINOv3 does.

    Raises:
        UserError: query or value biases that the backbone has no place for, or another rotary embedding than timm's.
    """
    if any(key.endswith("downsample_layers.0.0.weight") for key in tensors):  # ConvNeXt, whose names timm's filter has
        return below(tensors, "downsample_layers.0.0.weight", "DINOv3", where), set()
    own, dropped = split_off(below(tensors, "storage_tokens", "DINOv3", where), "mask_token", "local_cls_norm", "head.")
    periods = next((own.pop(key) for key in list(own) if key.endswith("rope_embed.periods")), None)
    expected = getattr(getattr(backbone, "rope", None), "periods", None)
    if periods is not None and isinstance(expected, Tensor):
        same = periods.shape == expected.shape
        if not same or not torch.allclose(periods.float(), expected.float().cpu(), rtol=PERIODS_TOLERANCE):
            raise UserError(
                f"{where}: rope_embed.periods {list(periods.shape)}: another rotary embedding than the backbone's "
                f"{list(expected.shape)}: another number of heads, or another base; expected the timm model of the file"
            )
    if "blocks.0.attn.q_bias" not in backbone.state_dict():
        own = _without_biases(own, where)
    return {key: each for key, each in own.items() if not key.endswith("bias_mask")}, dropped


def _without_biases(tensors: Tensors, where: str) -> Tensors:
    """Return the tensors without biases of queries, keys and values, which have to be zero but for those of keys.

    Raises:
        UserError: a bias of queries or values is not zero.
    """
    for key in [key for key in tensors if key.endswith("attn.qkv.bias")]:
        query, _, value = tensors[key].chunk(3)
        if query.any() or value.any():
            raise UserError(
                f"{where}: {key}: biases that are not zero, and the backbone has none; expected the timm model with "
                "_qkvb at the end of its name"
            )
    return {key: each for key, each in tensors.items() if not key.endswith("attn.qkv.bias")}


def width_of(tensors: Tensors) -> int:
    """Return the width of a vision transformer, of its tensors under timm's names."""
    return int(tensors["patch_embed.proj.weight"].shape[0])


def _huggingface(tensors: Tensors, backbone: nn.Module, where: str) -> tuple[Tensors, set[str]]:
    """Return what a vision transformer of transformers has, of DINOv3 by way of its own project's names."""
    named, dropped = from_huggingface(below(tensors, "embeddings.cls_token", "Hugging Face transformers", where))
    if "storage_tokens" in named:
        named, more = from_dinov3(named, backbone, where)
        dropped |= more
    return named, dropped


READERS: dict[str, Reader] = {  # by `Layout.reader`; the names of all other layouts are recognized
    "masked autoencoder": from_retfound_mae,
    "modalities": from_mirage,
    "storage tokens": from_dinov3,
    "transformers": _huggingface,
}
