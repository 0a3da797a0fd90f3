"""Check of a backbone's timm model and arguments without timm, whose import takes seconds: every dry run does it.

The table `timm_models.json` is generated from the installed timm (`octdino/models/timm_registry.py`, `make schema`).
What it does not list is left to the job that builds the network where another version of timm is installed.
"""

import difflib
import functools
import importlib.metadata
import json
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


def patch_sides(model: ModelSettings) -> tuple[int, ...] | None:
    """Return height and width of a VisionTransformer's patches in px; () if not known; None: another network."""
    found = find_timm_model(model.timm)
    if found is None:
        return ()
    if found.patch_size is None:
        return None if found.cls != "NaFlexVit" else ()
    side = model.args.get("patch_size", found.patch_size)
    sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
    return sides if all(isinstance(each, int) and each > 0 for each in sides) else ()


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
