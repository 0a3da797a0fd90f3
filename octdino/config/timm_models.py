"""Check of a backbone's timm model and arguments without timm, whose import takes seconds: every dry run does it.

The table `timm_models.json` is generated from the installed timm (`octdino/models/timm_registry.py`, `make schema`).
What it does not list is left to the job that builds the network where another version of timm is installed.
"""

import difflib
import functools
import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from octdino.config.models import ModelSettings
from octdino.config.networks import LOADING, OURS


class TimmModel(NamedTuple):
    """A timm model.

    Attributes:
        cls: name of its class.
        patch_size: px, of a VisionTransformer; 0: its patches are not pixels; None: another network.
        tags: its weights: the part of a name after the dot.
        arguments: that it takes; None: not known.
    """

    cls: str
    patch_size: int | None
    tags: list[str]
    arguments: list[str] | None


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("timm_models.json").read_text(encoding="utf-8"))
    return found


def find_timm_model(name: str) -> TimmModel | None:
    """Return the model of a timm name, with or without a tag; None if the table has no such model."""
    row = _table()["models"].get(name.split(".")[0])
    if row is None:
        return None
    cls, patch_size, tags = row
    return TimmModel(cls, patch_size, tags, _table()["classes"][cls])


def check_timm_model(model: ModelSettings) -> None:
    """Check that timm has the model and the tag, and that the model takes the arguments.

    Raises:
        ValueError: it does not; with similar names. Never where a timm is installed that the table is not of.
    """
    if fault := _fault(model):
        if _other_timm():
            return
        raise ValueError(fault)


def may_mask_patches(model: ModelSettings) -> bool:
    """Whether a network is, as far as is known, a VisionTransformer of timm, which methods that mask patches need."""
    found = find_timm_model(model.timm)
    return found is None or found.patch_size is not None or found.cls == "NaFlexVit"


def patch_sides(model: ModelSettings) -> tuple[int, ...]:
    """Return height and width in px of the patches that have to divide a transformer's input.

    They are from the table or, of others than VisionTransformers, from the name. () where there are none, where they
    are not known, and for networks whose input has one size, of their own.
    """
    found, named = find_timm_model(model.timm), re.search(r"_patch(\d+)", model.timm)
    if not has_image_size(model) or (found and found.cls == "NaFlexVit"):
        return ()
    if found and found.patch_size is not None:
        side = model.args.get("patch_size", found.patch_size) if found.patch_size else 0
    else:
        side = model.args.get("patch_size", int(named[1]) if named else 0)
    sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
    return sides if all(isinstance(each, int) and each > 0 for each in sides) else ()


def has_image_size(model: ModelSettings) -> bool:
    """Whether the network is built for the side of its input; others take any, or one of their own."""
    return "vit" in model.timm or "deit" in model.timm


def check_patches(model: ModelSettings, key: str, size: int, name: str, *, padded: bool = True) -> None:
    """Check that a transformer's patches divide the side of its input.

    Args:
        key: of the side in the configuration, which begins the message.
        size: px.
        name: of the backbone, for the message.
        padded: whether the network may pad images (timm's `dynamic_img_pad`); not in pretraining.

    Raises:
        ValueError: they do not.
    """
    sides = () if padded and model.args.get("dynamic_img_pad") else patch_sides(model)
    if any(size % side for side in sides):
        side = max(sides)
        low = max(side, size - size % side)
        raise ValueError(f"{key}: {size} px; {name} takes multiples of {side}, such as {low} or {low + side}")


def _fault(model: ModelSettings) -> str | None:
    found, (arch, _, tag) = find_timm_model(model.timm), model.timm.partition(".")
    if found is None:
        return f"{model.timm!r} is no timm model; {_similar(arch, list(_table()['models']))}"
    if tag and tag not in found.tags:
        return f"timm's {arch} has no weights {tag!r}; {_similar(tag, found.tags)}"
    if found.arguments is not None and (wrong := sorted(set(model.args) - set(found.arguments))):
        free = [name for name in found.arguments if name not in LOADING and name not in OURS]
        return f"args.{wrong[0]}: timm's {arch} takes no such argument; {_similar(wrong[0], free)}"
    return None


def _similar(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 3)
    return f"similar: {', '.join(close)}" if close else "none is similar" if len(known) > 60 else _listed(known)


def _listed(known: list[str]) -> str:
    return f"it has {', '.join(known)}" if known else "it has none"


def _other_timm() -> bool:
    """Whether a timm is installed that the table is not of; none is where rules run in conda environments."""
    try:
        return bool(importlib.metadata.version("timm") != _table()["timm"])
    except importlib.metadata.PackageNotFoundError:
        return False
