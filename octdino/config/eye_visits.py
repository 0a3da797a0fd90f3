"""Settings of methods that take visits of one eye for positives (Holland et al. 2024)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from octdino.config.method_settings import MethodSettings


class VisitLimits(MethodSettings):
    """How far apart two visits of an eye may be whose scans are positives."""

    positives_weeks: float | None = Field(
        None,
        gt=0,
        description="with positives: eye, visits that are named by weeks, days or dates (W12, D84) are at most so far "
        "apart; null: no limit",
    )
    positives_visits: int | None = Field(
        None,
        ge=1,
        description="the same for visits that are numbered only (V3): at most so many numbers apart; null: no limit",
    )

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.positives_weeks is not None or self.positives_visits is not None

    @property
    def of_eyes(self) -> bool:
        """Whether scans of one eye are positives."""
        chosen: Sequence[str] = getattr(self, "positives", ())
        return "eye" in chosen

    @field_validator("positives", mode="before", check_fields=False)
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Take `positives: eye` for a list of one."""
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_eyes(self) -> Self:
        for name in ("positives_weeks", "positives_visits"):
            if getattr(self, name) is not None and not self.of_eyes:
                raise ValueError(f"{name}: it limits the visits of an eye; expected eye among positives")
        return self


class VisitViews(VisitLimits):
    """Methods whose second large view may be of another visit of the same eye."""

    newer: ClassVar[tuple[str, ...]] = ("positives", "positives_weeks", "positives_visits")

    positives: list[Literal["eye"]] = Field(
        [],
        max_length=1,
        description="eye: the second large view is of the same place of the same eye at another visit, where there is "
        "one; empty: all views are of one scan",
    )

    @property
    def compared_by(self) -> list[str]:
        return ["eye", "visit"] if self.positives else []
