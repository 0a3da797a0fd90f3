"""What every settings class has in common, and how a wrong value becomes one line."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from octdino.errors import UserError


class Settings(BaseModel):
    """A section of `config.yaml`: unknown keys are refused, values are checked, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

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


def _line(error: Any, cls: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed here: {', '.join(_allowed(cls, error['loc']))}"
    if error["type"] == "missing":
        return f"{key}: missing; {error['msg']}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {error['input']!r} is not allowed; {message}"


def _allowed(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc[:-1]:
        field = cls.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        cls = inner
    return sorted(cls.model_fields)
