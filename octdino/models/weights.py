"""Load pretrained weights from a file in the format of timm, torchvision, DINO or lightly, or by timm's download.

They are brought to timm's names and fitted to the backbone's input: position embeddings are resampled (bicubic, timm's
`resample_abs_pos_embed`), and the first convolution of weights for RGB is summed over its channels where scans are
gray, which is the same as repeating the gray image in all three. Every parameter of the backbone comes from the file,
or the file is refused. Layouts of other projects are in `octdino.models.published_layouts`.

Weights trained on ImageNet saw images standardized by ImageNet's mean and deviation. octdino standardizes by the
cohort's own, so their first layer sees a distribution of the same scale, which is what transfer learning needs. Arms
that start from published weights by their name take the published mean and deviation instead
(`octdino.models.first_convolution`).
"""

import argparse
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from octdino.config import ModelSettings
from octdino.config.preprocessor import PublishedInput
from octdino.data.safetensors_torch import read_tensors
from octdino.data.weights_file import check_finite
from octdino.errors import UserError
from octdino.models.first_convolution import first_convolutions, fit_first_convolution
from octdino.models.huggingface_names import check_config
from octdino.models.published_layouts import READERS

log = logging.getLogger("octdino.models")
Tensors = dict[str, Tensor]

# What trainers wrap a state dict in, the wanted one first: DINO's teacher, timm's average, Lightning, MAE
WRAPPERS = ("teacher", "state_dict_ema", "model_ema", "state_dict", "model")
# Parts beside a backbone that carry no features; a part that the backbone itself has is kept
HEADS = ("head", "heads", "head_dist", "fc", "classifier", "pre_logits", "masked_embed")


@dataclass(frozen=True)
class NameScheme:
    """How a project names a backbone's tensors: `anchor` is in every such file, `names` lead to timm's."""

    title: str
    anchor: str
    names: tuple[tuple[str, str], ...] = ()

    def renamed(self, key: str) -> str:
        for pattern, name in self.names:
            key = re.sub(pattern, name, key)
        return key


TORCHVISION_VIT = NameScheme(
    "torchvision's vision transformer",
    "conv_proj.weight",
    (
        (r"^class_token$", "cls_token"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),  # linear_1 in files from before torchvision 0.12
        (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
        (r"^encoder\.ln\.", "norm."),
    ),
)
LIGHTLY_RESNET = NameScheme(
    "a torchvision ResNet as nn.Sequential, lightly's way",
    "4.0.conv1.weight",
    ((r"^0\.", "conv1."), (r"^1\.", "bn1."), (r"^4\.", "layer1."), (r"^5\.", "layer2."), (r"^6\.", "layer3."),
     (r"^7\.", "layer4.")),
)  # fmt: skip
BLOCK_CHUNKS = ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),)  # DINOv2's trainer; the second number counts through


def load_weights(backbone: nn.Module, model: ModelSettings, published: PublishedInput | None = None) -> None:
    """Load the local file `model.weights` into a timm model without a classifier.

    Args:
        backbone: the model; its input's channels and size are what the weights are fitted to.
        model: its `layout` says whose names the tensors have. For most the file is a state dict, or a checkpoint that
            holds one, and the names are recognized: timm's (timm, the reference DINO and DINOv2, torchvision's ResNets,
            octdino's own backbone.safetensors), torchvision's ViTs, lightly's ResNets; below any prefix
            (`module.backbone.`), in any of `WRAPPERS`. Of a student and a teacher the teacher is taken.
        published: the input that the weights were trained with, where the scans are standardized by it.

    Raises:
        UserError: no such file, not a checkpoint, one that needs code to be read, one that does not fit, or a number
            that is not finite.
    """
    path = model.weights_file
    assert path is not None, "asked for where there is a file"
    if model.layout == "huggingface":
        check_config(path.with_name("config.json"), backbone)
    tensors, wrapper = _unwrapped(_read(path), path)
    inside = f", its {wrapper!r}" if wrapper else ""
    if reader := READERS.get(model.layout_info.reader):
        own, outside = reader(tensors, backbone, str(path))
        source = f"{path} ({model.layout_info.title}'s names{inside})"
    else:
        title, prefix, own = _recognized(tensors, backbone)
        outside = {key.split(".")[0] for key in tensors if not key.startswith(prefix)}
        source = f"{path} ({title}{inside}{f', below {prefix!r}' if prefix else ''})"
        if "register_tokens" in own and getattr(backbone, "reg_token", None) is None:
            raise UserError(f"{source}: has register tokens, {model.timm} has none; expected a timm model with reg4")
    check_finite(own, str(path))
    _load(backbone, own, source, model.timm, outside, published)


def load_download(backbone: nn.Module, name: str, published: PublishedInput | None = None) -> None:
    """Load timm's own weights of `name`, a model with or without a tag (`vit_small_patch16_224.dino`).

    Raises:
        UserError: timm has none, there is no network, or the backbone's arguments make it another model.
    """
    try:
        source = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:
        raise UserError(
            f"no ImageNet weights for {name} from timm's download ({type(error).__name__}); "
            "name a local file as models.NAME.weights, or run where there is a network"
        ) from None
    _load(backbone, source.state_dict(), "timm's download", name, set(), published)


def _read(path: Path) -> Any:
    """Return what the file contains; nothing in it is executed (safetensors, or torch's unpickler of plain values).

    Raises:
        UserError: no such file, unreadable, or not a checkpoint of plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path, "pretrain")
        with torch.serialization.safe_globals([argparse.Namespace]):  # in DINO's checkpoints: the trainer's arguments
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'unreadable'}") from None
    except Exception as error:  # the zip reader and the unpickler raise many kinds at bytes that are no checkpoint
        found = re.search(r"(?:GLOBAL|class|function) ([A-Za-z_][\w.]*\.\w+)", str(error))
        if found is None:
            raise UserError(
                f"{path}: not a checkpoint; expected .safetensors, or .pth, .pt, .bin written by torch.save"
            ) from None
        raise UserError(
            f"{path}: holds a pickled {found[1]}, which only running its code could read: refused; "
            "expected a state dict: torch.save(model.state_dict(), FILE)"
        ) from None


def _unwrapped(data: Any, path: Path) -> tuple[Tensors, str]:
    """Return the state dict, and the keys below which it was, joined by dots.

    Raises:
        UserError: there are no tensors by name.
    """
    found, trail = data, []
    while isinstance(found, dict) and (key := next((k for k in WRAPPERS if isinstance(found.get(k), dict)), None)):
        found = found[key]
        trail.append(key)
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    if not tensors:
        holds = f"a mapping of {_some([str(k) for k in found])}" if isinstance(found, dict) else type(found).__name__
        raise UserError(f"{path}: holds {holds} and no tensors by name; expected a state dict, plain or in {WRAPPERS}")
    return tensors, ".".join(trail)


def _recognized(tensors: Tensors, backbone: nn.Module) -> tuple[str, str, Tensors]:
    """Return the title of a scheme, a prefix, and the tensors below it under timm's names.

    It is the pair of scheme and prefix whose names cover most of the backbone.
    """
    wanted = set(backbone.state_dict())
    schemes = (
        NameScheme(
            "timm's names", f"{first_convolutions(backbone)[0]}.weight", BLOCK_CHUNKS if "cls_token" in wanted else ()
        ),
        TORCHVISION_VIT,
        LIGHTLY_RESNET,
    )
    best = (0, (False, False, 0)), "names as their project has them", "", tensors  # some of which timm's filters know
    for scheme in schemes:
        prefixes = {key.removesuffix(scheme.anchor) for key in tensors if key.endswith(scheme.anchor)}
        for prefix in sorted(p for p in prefixes if not p or p.endswith(".")):
            own = {scheme.renamed(k.removeprefix(prefix)): v for k, v in tensors.items() if k.startswith(prefix)}
            online = not re.search("student|momentum|encoder_k|ema", prefix)
            score = len(wanted & own.keys()), ("teacher" in prefix, online, -len(prefix))
            if score > best[0]:
                best = score, scheme.title, prefix, own
    return best[1:]


def _load(
    backbone: nn.Module,
    tensors: Tensors,
    source: str,
    name: str,
    dropped: set[str],
    published: PublishedInput | None = None,
) -> None:
    """Fit `tensors` to the backbone and load them all.

    Raises:
        UserError: a tensor is missing, left over, or of another shape.
    """
    wanted: Tensors = backbone.state_dict()
    heads = {k for k in tensors if k not in wanted and (k.split(".")[0] in HEADS or k.startswith("decoder_"))}
    dropped = dropped | {key.split(".")[0] for key in heads} | ({"mask_token"} & tensors.keys())
    fitted = _fitted({k: v for k, v in tensors.items() if k not in heads}, backbone, source, name)
    fitted = fit_first_convolution(fitted, backbone, published)
    for key in wanted.keys() - fitted.keys():
        if key.endswith(".num_batches_tracked"):  # a counter that files from before torch 0.4.1 lack; never used
            fitted[key] = wanted[key]
    wrong = [
        f"{key} {list(fitted[key].shape)} for {list(value.shape)}"
        for key, value in wanted.items()
        if key in fitted and fitted[key].shape != value.shape
    ]
    missing, extra = [k for k in wanted if k not in fitted], [k for k in fitted if k not in wanted]
    faults = {"missing": missing, "left over": extra, "of another shape": wrong}
    if any(faults.values()):
        told = "; ".join(f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items() if keys)
        raise UserError(f"{source}: does not fit {name}: {told}")
    backbone.load_state_dict(fitted)
    changed = [k for k, v in fitted.items() if k in tensors and tensors[k].shape != v.shape]
    log.info(
        "%s: all %d tensors of %s loaded; dropped: %s; fitted to the input: %s",
        source, len(fitted), name, _some(sorted(dropped)) or "nothing", _some(changed) or "nothing",
    )  # fmt: skip


def _fitted(tensors: Tensors, backbone: nn.Module, source: str, name: str) -> Tensors:
    """Return the tensors after timm's filter of the model's family: embeddings resampled, other projects' names.

    Raises:
        UserError: the filter fails on them.
    """
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert:
        try:
            tensors = convert(dict(tensors), backbone)
        except Exception as error:
            raise UserError(f"{source}: does not fit {name}: {' '.join(str(error).split())}") from None
    return tensors


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
