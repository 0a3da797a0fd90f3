"""Settings of the evaluate stage: reference arm, bootstrap, confidence intervals, subgroups."""

from typing import Literal, Self

from pydantic import Field, model_validator

from octdino.config.names import (
    LARGEST_SEED,
)
from octdino.config.settings_base import Settings


class EvaluateSettings(Settings):
    """How the arms are compared."""

    reference: str = Field("scratch-finetune", description="the arm that the others are compared with")
    labels: list[str] | None = Field(None, description="the labels that are compared; null: all of the cohort")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of test patients")
    confidence: float = Field(0.95, gt=0.5, lt=1)
    interval: Literal["percentile", "bca"] = Field(
        "percentile", description="percentile of the resamples, or bias-corrected and accelerated"
    )
    small_sample_correction: bool = Field(
        True, description="widen intervals, and p, for few test patients (Hesterberg 2015)"
    )
    operating_point: float = Field(
        0.9, gt=0, lt=1, description="specificity (sensitivity) that a label's threshold is set to on val"
    )
    pooling: Literal["mean", "max"] = Field("mean", description="a patient's score from those of their scans")
    bins: int = Field(10, ge=2, description="of the calibration error, with as many scans each")
    min_positive_patients: int = Field(
        10, ge=1, description="labels with fewer positive patients in the labelled cohort are not evaluable"
    )
    primary_positive_patients: int = Field(25, ge=1, description="labels with fewer are marked exploratory")
    min_test_patients: int = Field(
        3, ge=2, description="labels with fewer positive, or fewer negative, test patients are not evaluable"
    )
    cst_bands: list[float] = Field([320.0, 400.0], description="subgroups: where bands of retinal thickness meet, µm")
    bcva_bands: list[float] = Field([70.0, 80.0], description="subgroups: where bands of acuity meet, letters")
    small_group: int = Field(10, ge=2, description="subgroups with fewer test patients are marked as small")
    seed: int = Field(0, ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name, bands in (("cst_bands", self.cst_bands), ("bcva_bands", self.bcva_bands)):
            if bands != sorted(set(bands)):
                raise ValueError(f"{name}: {bands}; expected ascending values, each once")
        return self
