"""Table of timm's models for `octdino/config/timm_models.json`, with which a configuration is checked without timm.

    python -m octdino.models.timm_registry > octdino/config/timm_models.json

writes it anew, as `make schema` does. No network is built: timm's functions are called with a substitute of the builder
at their end, which notes the class and its arguments.
"""

import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import timm
from timm.models import VisionTransformer
from timm.models import _registry as registry

BUILDER = "build_model_with_cfg"
READ_FROM_KEYWORDS = re.compile(r"""kwargs\.(?:pop|get|setdefault)\(\s*["'](\w+)["']""")


class _Captured(BaseException):
    """Raised in place of building a network; no Exception, which timm's functions could catch."""

    def __init__(self, cls: type, arguments: dict[str, Any]) -> None:
        self.cls, self.arguments = cls, arguments


def timm_table() -> dict[str, Any]:
    """Return timm's version, the arguments of each class of networks, and class, patch size and tags of each model.

    Arguments are null where a class passes any keyword on. The patch size is that of a VisionTransformer, 0 where its
    patches are not pixels (hybrids), and null for all other networks.
    """
    classes: dict[str, Any] = {}
    models = {}
    with _substituted_builder():
        for name in sorted(registry._model_entrypoints):
            cls, given = _class_of(name)
            known, module = _arguments_of(cls), registry._model_entrypoints[name].__module__
            before = classes.setdefault(cls.__name__, known)
            if known is not None and before is not None:
                classes[cls.__name__] = sorted({*before, *known, *_read_in_module(module)})
            patch_size = None
            if issubclass(cls, VisionTransformer):
                patch_size = 0 if "embed_layer" in given else given.get("patch_size", 16)
            models[name] = [cls.__name__, patch_size, _tags(name)]
    return {"timm": timm.__version__, "classes": dict(sorted(classes.items())), "models": models}


@contextmanager
def _substituted_builder() -> Iterator[None]:
    def note(cls: type, variant: str, pretrained: bool, *rest: Any, **arguments: Any) -> None:
        if arguments.get("features_only"):  # the stem of a hybrid, before its transformer
            return
        raise _Captured(cls, arguments)

    modules = [
        module for name, module in sys.modules.items() if name.startswith("timm.models") and hasattr(module, BUILDER)
    ]
    patches = [patch.object(module, BUILDER, note) for module in modules]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def _class_of(name: str) -> tuple[type, dict[str, Any]]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that timm has changed
            registry._model_entrypoints[name]()
    except _Captured as found:
        return found.cls, found.arguments
    raise AssertionError(f"timm's {name} does not use {BUILDER}; this module has to learn how it is built")


def _arguments_of(cls: type) -> list[str] | None:
    parameters = inspect.signature(cls).parameters.values()
    if any(each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters):
        return None
    return [each.name for each in parameters]


@cache
def _read_in_module(module: str) -> frozenset[str]:
    """Return what functions of a module of timm take beside the class: parameters, and keywords that they read."""
    found: set[str] = set()
    for function in vars(sys.modules[module]).values():
        if inspect.isfunction(function) and function.__module__.startswith("timm."):
            parameters = inspect.signature(function).parameters
            if "kwargs" in parameters:
                found |= set(parameters) | set(READ_FROM_KEYWORDS.findall(inspect.getsource(function)))
    return frozenset(found - {"kwargs", "variant", "pretrained"})


def _tags(name: str) -> list[str]:
    configurations = registry._model_default_cfgs.get(name)
    return sorted(tag for tag in configurations.cfgs if tag) if configurations else []


def timm_table_text() -> str:
    """Return the table as JSON with one class and one model per line."""
    table = timm_table()
    parts = [f'"timm": {json.dumps(table["timm"])}']
    for key in ("classes", "models"):
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in table[key].items()]
        parts.append(f'"{key}": {{\n' + ",\n".join(lines) + "\n}")
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    sys.stdout.write(timm_table_text())
