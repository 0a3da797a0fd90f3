"""Backbones: timm models without a classifier; saving and loading backbone.safetensors and backbone.json."""

import difflib
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import VisionTransformer
from torch import nn

from octdino.config import ModelSettings
from octdino.config.preprocessor import PublishedInput
from octdino.config.timm_models import has_image_size
from octdino.data.schemas.metadata import BackboneMetadata, BackboneSpec, read_metadata, write_metadata
from octdino.data.weights_file import read_weights, write_weights
from octdino.errors import UserError, one_line
from octdino.models.attention import choose_attention
from octdino.models.convolutions import avoid_onednn_defects
from octdino.models.weights import load_download, load_weights


def create_backbone(
    model: ModelSettings,
    in_chans: int,
    size: int,
    *,
    imagenet: bool = False,
    published: PublishedInput | None = None,
) -> nn.Module:
    """Return a timm model that maps [B, in_chans, S, S] to pooled features [B, num_features].

    ViTs take views of any size that their patches divide (`dynamic_img_size`).

    Args:
        model: timm's name and arguments.
        in_chans: 1 for gray, 3 for RGB.
        size: px, side of the input.
        imagenet: start from the file `model.weights`, or from timm's download (`octdino.models.weights` says how).
        published: the input that these weights were trained with, where the scans are standardized by it.

    Raises:
        UserError: no such model, wrong arguments, or no weights to be had.
    """
    arch = model.timm.split(".")[0]
    if not timm.is_model(arch):
        similar = ", ".join(difflib.get_close_matches(model.timm, timm.list_models(), 5)) or "see timm.list_models()"
        raise UserError(f"{model.timm!r} is no timm model; similar: {similar}")
    try:
        backbone = _create(model, in_chans, size)
        if not next(backbone.parameters()).is_meta:  # without weights only its shapes are asked for
            _check_forward(backbone, in_chans, size)
    except (TypeError, AssertionError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise UserError(f"{model.timm}: timm refuses the arguments {model.args}: {one_line(error)}") from None
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            why = one_line(error)
            raise UserError(f"{model.timm}: cannot be made with the arguments {model.args}: {why}") from None
        tags = ", ".join(timm.list_pretrained(f"{arch}.*")) or f"none: {arch}"
        raise UserError(f"{model.timm!r}: timm knows no weights of this name; it has {tags}") from None
    if imagenet and model.weights:
        load_weights(backbone, model, published)
    elif imagenet:
        load_download(backbone, model.timm, published)
    return backbone


def timm_arguments(model: ModelSettings, size: int) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` that shape the network, but in_chans and num_classes."""
    sizes = {"img_size": size, "dynamic_img_size": True} if has_image_size(model) else {}
    return {**sizes, **model.args}


def _create(model: ModelSettings, in_chans: int, size: int) -> nn.Module:
    arguments = timm_arguments(model, size)
    backbone = timm.create_model(model.timm, in_chans=in_chans, num_classes=0, **arguments)
    return choose_attention(avoid_onednn_defects(backbone))


@torch.no_grad()
def _check_forward(backbone: nn.Module, in_chans: int, size: int) -> None:
    """Run one image through the backbone: timm builds some networks that fail only there, a ResNet of three stages."""
    training = backbone.training
    backbone.eval()(torch.zeros(1, in_chans, size, size))  # changes no buffers and draws no random numbers
    backbone.train(training)


def set_image_size(backbone: nn.Module, size: int) -> nn.Module:
    """Resample a vision transformer's position embeddings for a side of `size` px, in place, and return it.

    It then computes what timm computes where it resamples them in every forward pass. It stays as it is where it pads
    images of this side (timm's `dynamic_img_pad`): timm then resamples for the padded image in any case, and positions
    that are resampled twice are others. Networks without such embeddings stay as they are.
    """
    if isinstance(backbone, VisionTransformer) and not _pads(backbone, size):
        backbone.set_input_size(img_size=(size, size))
    return backbone


def _pads(backbone: VisionTransformer, size: int) -> bool:
    patches = backbone.patch_embed
    return patches.dynamic_img_pad and any(size % side for side in patches.feat_ratio(as_scalar=False))


def image_size(backbone: nn.Module, size: int) -> int:
    """Return the side in px that a vision transformer's position embeddings are for; `size` for other networks."""
    return int(backbone.patch_embed.img_size[0]) if isinstance(backbone, VisionTransformer) else size


def num_features(backbone: nn.Module) -> int:
    """Return the length of the pooled feature vector."""
    features = getattr(backbone, "head_hidden_size", backbone.num_features)  # MobileNetV3 and VGG widen them
    assert isinstance(features, int)
    return features


def save_backbone(folder: Path, backbone: nn.Module, spec: BackboneSpec, metadata: dict[str, Any]) -> None:
    """Write backbone.safetensors (timm's own key names) and then backbone.json, each atomically.

    Args:
        metadata: the fields of `BackboneMetadata` but the spec and the hash of the weights.
    """
    sha256 = write_weights(folder / "backbone.safetensors", backbone.state_dict())
    path = folder / "backbone.json"
    write_metadata(
        path, BackboneMetadata.parse({"spec": spec.plain(), "weights_sha256": sha256, **metadata}, str(path))
    )


def load_backbone(folder: Path) -> tuple[nn.Module, BackboneMetadata]:
    """Rebuild the backbone of a pretraining run.

    Raises:
        UserError: the folder holds no backbone, or its weights are not those of its metadata or do not fit.
    """
    path, weights = folder / "backbone.json", folder / "backbone.safetensors"
    metadata = read_metadata(path, BackboneMetadata, "pretrain")
    spec = metadata.spec
    backbone = create_backbone(ModelSettings(timm=spec.timm, args=spec.args), spec.in_chans, spec.size)
    tensors = read_weights(weights, metadata.weights_sha256)
    try:
        backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{weights}: does not fit {spec.timm} of {path}: {error}") from None
    return backbone, metadata
