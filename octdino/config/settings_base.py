"""Base class of all settings: validation, and one-line errors for wrong, unknown and renamed keys."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from octdino.errors import UserError, short

T = TypeVar("T")

RENAMED = {  # old key: its new name, relative to the same section
    "accumulate": "grad_cache_chunks",
    "bank": "retrieval_gallery",
    "blur": "blur_p",
    "brightness": "brightness_max",
    "contrast": "contrast_max",
    "expand": "small_sample_correction",
    "flip": "flip_p",
    "fractions_of": "arm_fractions",
    "gamma": "gamma_max",
    "grey": "color.gray_p",
    "hue": "color.hue_max",
    "jitter": "jitter_p",
    "licence": "license",
    "koleo_neighbours": "koleo_neighbors",
    "mass": "attention_mass",
    "masses": "attention_masses",
    "neighbours": "neighbors",
    "penalties": "inverse_regularization",
    "rotate": "rotate_degrees",
    "saturation": "color.saturation_max",
    "solarize": "solarize_p",
    "speckle": "speckle_max",
    "tensorboard": "tracking",
    "watch": "online_eval_max_scans",
}
MOVED = {"classify.reported": "replication.protocol", "report.quoted": "replication.numbers"}  # to replication/


class Settings(BaseModel):
    """A section of `config.yaml`: unknown keys are refused, values are checked, instances are immutable.

    A validator's message begins with the key that it refers to: "size: at least 16 pixels each way".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _sections_in_part(cls, values: Any) -> Any:
        """Lay a partly given section or mapping over its default; a null section (all commented out) is empty."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name, field in cls.model_fields.items():
            default = field.default
            if isinstance(default, Settings):
                default = default.model_dump(exclude_unset=True)
                if name in values and values[name] is None:
                    values[name] = {}
            if isinstance(default, dict) and isinstance(values.get(name), dict):
                values[name] = merged(default, values[name])
        return values

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Return `values` as validated settings; `where` (a file or section) begins the error message.

        Raises:
            UserError: one line with each wrong key, its value and what is allowed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: " + "; ".join(_line(e, cls) for e in error.errors())) from None


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `over`, recursively: mappings are merged key by key, other values are replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def as_list(value: Any) -> Any:
    """Return a single value as a list of one, for keys that hold candidates."""
    return value if isinstance(value, list | tuple) else [value]


def checked(key: str, check: Callable[[T], object], *values: T) -> None:
    """Check each value in a validator; the error message begins with `key`."""
    for value in values:
        try:
            check(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def renamed(key: str) -> str | None:
    """Return the new name of a dotted key of an earlier version, or None if its last part was not renamed."""
    *section, name = key.split(".")
    new = RENAMED.get(name)
    return ".".join([*section, new]) if new else None


def _line(error: Any, cls: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        if key in MOVED:
            return f"{key}: moved to {MOVED[key]} of replication/Snakefile; see docs/replication.md"
        *section, name = error["loc"]
        names = _keys(_class_at(cls, section))
        if (new := renamed(key)) and RENAMED[str(name)].split(".")[0] in names:
            return f"{key}: renamed; write {new}"
        return f"{key}: unknown key; " + _allowed(str(name), names)
    if error["type"] == "missing":
        return f"{key}: missing; it has no default"
    if error["type"] == "value_error":  # the message names the key below this one
        return ".".join(part for part in (key, error["msg"].removeprefix("Value error, ")) if part)
    return f"{key}: {short(error['input'])} is not allowed; {error['msg']}"


def _class_at(cls: type[BaseModel], section: Sequence[int | str]) -> Any:
    """The type of the section at a path of keys below `cls`."""
    kind: Any = cls
    for part in section:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif get_origin(kind) is list:
            kind = get_args(kind)[0]
    return kind


def _keys(kind: Any) -> list[str]:
    return sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _allowed(name: str, names: list[str]) -> str:
    """The keys allowed in place of an unknown `name`, the closest match first."""
    close = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"allowed here: {', '.join(names)}"
