"""What every settings class has in common, and how a wrong value becomes one line."""

import difflib
from collections.abc import Callable
from typing import Any, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from octdino.errors import UserError

T = TypeVar("T")

RENAMED = {  # keys of earlier versions, and what they are now, in the same section
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
    "quoted": "replication.numbers, docs/replication.md",
    "reported": "replication.protocol, docs/replication.md",
    "rotate": "rotate_degrees",
    "saturation": "color.saturation_max",
    "solarize": "solarize_p",
    "speckle": "speckle_max",
    "watch": "online_eval_max_scans",
}


class Settings(BaseModel):
    """A section of `config.yaml`: unknown keys are refused, values are checked, instances do not change.

    A validator's message begins with the key that it is about: "size: at least 16 pixels each way".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _sections_in_part(cls, values: Any) -> Any:
        """A section given in part keeps its own defaults for the rest; one with every key commented out is empty."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name, field in cls.model_fields.items():
            if name in values and isinstance(field.default, Settings):
                given = {} if values[name] is None else values[name]
                if isinstance(given, dict):
                    given = {**field.default.model_dump(exclude_unset=True), **given}
                values[name] = given
        return values

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Validate `values`; `where` (a file or section) opens the message.

        Raises:
            UserError: one line naming each wrong key, its value and what is allowed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: " + "; ".join(_line(e, cls) for e in error.errors())) from None


def checked(key: str, check: Callable[[T], object], *values: T) -> None:
    """Check each value in a validator; a message begins with `key`."""
    for value in values:
        try:
            check(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def _line(error: Any, cls: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        if new := RENAMED.get(str(error["loc"][-1])):
            return f"{key}: renamed; write {new}"
        return f"{key}: unknown key; " + _allowed(cls, error["loc"])
    if error["type"] == "missing":
        return f"{key}: missing; it has no default"
    if error["type"] == "value_error":  # the message names the key below this one
        return ".".join(part for part in (key, error["msg"].removeprefix("Value error, ")) if part)
    value = repr(error["input"])
    return f"{key}: {value if len(value) < 60 else value[:57] + '...'} is not allowed; {error['msg']}"


def _allowed(cls: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """What may stand where the unknown key `loc` stands, the likeliest first."""
    kind: Any = cls
    for part in loc[:-1]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
    names = sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    close = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"allowed here: {', '.join(names)}"
