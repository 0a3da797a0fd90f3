"""Words for the type, range and unit of a setting, from the field of its settings class."""

import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

WORDS = {int: "whole number", float: "number", str: "text", Path: "path", bool: "true or false", Any: "any value"}
MANY = {"whole number": "whole numbers", "number": "numbers", "text": "texts", "path": "paths"}
COUNT = {2: "two", 3: "three", 4: "four"}
UNITS = (  # the first that fits: of the key's last part, of the beginning of its meaning
    (r"_degrees$", r"$^", "degrees"),
    (r"_seconds$", r"seconds", "s"),
    (r"_p$", r"probability", "probability"),
    (r"^size$|_size$|_sigma$", r"px|height, width", "px"),
    (r"$^", r".*µm", "µm"),
    (r"bcva", r".*letters", "ETDRS letters"),
    (r"$^", r"shares? |coverage|.*as a share|.*as share|largest change|specificity", "share"),
    (r"^C$", r"$^", ""),
)


def type_words(field: FieldInfo) -> str:
    """Return the type of a setting in words, with its range and whether it may be null."""
    given = [getattr(part, "json_schema_input_type", None) for part in field.metadata]
    kinds = [kind for kind in given if kind is not None and kind is not PydanticUndefined]
    words = _words(kinds[0] if kinds else field.annotation, _range(field.metadata))
    single = any(type(part).__name__ == "BeforeValidator" for part in field.metadata) and not kinds
    return f"{words}, or a single one" if single else words


def unit(name: str, field: FieldInfo) -> str:
    """Return the unit of a number; empty where it has none (a count, a learning rate), or is no number."""
    if not re.search("number", _words(field.annotation, "")):
        return ""
    own = name.rsplit(".", 1)[-1]
    meaning = field.description or ""
    for in_name, in_meaning, found in UNITS:
        whole = found == "px" and own in ("batch_size", "min_group_size")
        if not whole and (re.search(in_name, own) or re.match(in_meaning, meaning)):
            return found
    return ""


def _range(metadata: list[Any]) -> str:
    """Return the allowed range of a number: `from 0 to 1`, `above 0`."""
    limits = {key: getattr(part, key) for part in metadata for key in ("ge", "gt", "le", "lt") if hasattr(part, key)}
    words = []
    if "ge" in limits:
        words.append(f"from {limits['ge']:g}" if limits["ge"] < 1e6 else f"from {limits['ge']}")
    if "gt" in limits:
        words.append(f"above {limits['gt']:g}")
    if "le" in limits:
        words.append(f"to {limits['le']}")
    if "lt" in limits:
        words.append(f"below {limits['lt']:g}")
    return " ".join(words)


def _words(kind: Any, limits: str) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        metadata = [part for extra in inner[1:] for part in (getattr(extra, "metadata", None) or [extra])]
        return _words(inner[0], _range(metadata) or limits)
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        parts = [_words(part, limits) for part in inner if part is not type(None)]
        return ", or ".join([*parts, *(["null"] if type(None) in inner else [])])
    if origin is tuple:
        return f"{COUNT[len(inner)]} {_plural(inner[0])}"
    if origin is list:
        return f"list of {_plural(inner[0])}"
    if origin is dict:
        return f"mapping of names to {_plural(inner[1])}" if get_origin(inner[1]) is not dict else "mapping of mappings"
    word = WORDS.get(kind)
    if word is None:
        return "section" if hasattr(kind, "model_fields") else str(getattr(kind, "__name__", kind))
    return f"{word} {limits}".strip() if word.endswith("number") else word


def _plural(kind: Any) -> str:
    word = _words(kind, "")
    first = next((one for one in ("whole number", "number", "text", "path") if word.startswith(one)), "")
    if first:
        return MANY[first] + word.removeprefix(first)
    return {"section": "sections", "any value": "values"}.get(word, word.replace("one of ", "", 1))
