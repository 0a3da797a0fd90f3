"""Backbones: timm models without a classifier, and the two files that carry one."""

import difflib
import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from octdino.config import ModelSettings, Settings
from octdino.errors import UserError
from octdino.files import read_json, replacing
from octdino.models.weights import load_download, load_weights
from octdino.tensors import read_tensors, write_tensors


class BackboneSpec(Settings):
    """Everything needed to rebuild a backbone and its input; stands in `backbone.json` under `spec`."""

    timm: str
    args: dict[str, Any]
    in_chans: int
    size: int
    mean: list[float]
    std: list[float]


def create_backbone(model: ModelSettings, in_chans: int, size: int, *, imagenet: bool = False) -> nn.Module:
    """A timm model that maps [B, in_chans, S, S] to pooled features [B, num_features].

    ViTs take views of any size that their patches divide (`dynamic_img_size`).

    Args:
        model: timm's name and arguments.
        in_chans: 1 for grey, 3 for RGB.
        size: px, the side of the images that it will mostly see.
        imagenet: start from the file `model.weights`, or from timm's download (`octdino.models.weights` says how).

    Raises:
        UserError: no such model, wrong arguments, or no weights to be had.
    """
    arch = model.timm.split(".")[0]
    if not timm.is_model(arch):
        close = ", ".join(difflib.get_close_matches(model.timm, timm.list_models(), 5)) or "see timm.list_models()"
        raise UserError(f"{model.timm!r} is no timm model; near it: {close}")
    try:
        backbone = _create(model.timm, {"in_chans": in_chans, "num_classes": 0, **model.args}, size)
    except (TypeError, AssertionError) as error:
        raise UserError(f"{model.timm}: timm refuses the arguments {model.args}: {error}") from None
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            raise
        tags = ", ".join(timm.list_pretrained(f"{arch}.*")) or f"none: {arch}"
        raise UserError(f"{model.timm!r}: timm knows no weights of this name; it has {tags}") from None
    if imagenet and model.weights:
        load_weights(backbone, model.weights, model.timm)
    elif imagenet:
        load_download(backbone, model.timm)
    return backbone


def _create(name: str, kwargs: dict[str, Any], size: int) -> nn.Module:
    if "vit" in name or "deit" in name:
        kwargs = {"img_size": size, "dynamic_img_size": True, **kwargs}
    model: nn.Module = timm.create_model(name, **kwargs)
    return model


def num_features(backbone: nn.Module) -> int:
    """Length of the pooled feature vector."""
    features = backbone.num_features
    assert isinstance(features, int)
    return features


@torch.no_grad()
def extract_features(backbone: nn.Module, batches: Any) -> Tensor:
    """Pooled features float32 [N, D] on the CPU of an iterable of standardised batches [B, C, S, S]; eval mode."""
    training = backbone.training
    backbone.eval()
    # Not through what a training run may have compiled for its own views.
    features = torch.cat([backbone.forward(batch).float().cpu() for batch in batches])
    backbone.train(training)
    return features


def save_backbone(folder: Path, backbone: nn.Module, spec: BackboneSpec, card: dict[str, Any]) -> None:
    """Write backbone.safetensors (timm's own key names) and backbone.json, each atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    with replacing(folder / "backbone.json") as temporary:
        temporary.write_text(json.dumps({"spec": spec.model_dump(mode="json"), **card}, indent=2) + "\n")
    write_tensors(folder / "backbone.safetensors", weights)


def load_backbone(folder: Path) -> tuple[nn.Module, BackboneSpec]:
    """Rebuild the backbone of a pretraining run.

    Raises:
        UserError: the folder holds no backbone, or its weights do not fit its description.
    """
    card, weights = folder / "backbone.json", folder / "backbone.safetensors"
    spec = BackboneSpec.parse(read_json(card, "pretrain").get("spec", {}), f"{card}: spec")
    tensors = read_tensors(weights, "pretrain")
    backbone = create_backbone(ModelSettings(timm=spec.timm, args=spec.args), spec.in_chans, spec.size)
    try:
        backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{weights}: does not fit {spec.timm} of {card}: {error}") from None
    return backbone, spec
