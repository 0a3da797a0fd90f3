"""Settings of the evaluate stage: reference arm, bootstrap, confidence intervals, subgroups."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config.external import ExternalSettings
from octdino.config.names import (
    LARGEST_SEED,
    check_once,
)
from octdino.config.settings_base import Settings, checked

# Of the comparison of arms within one run: neither external validation nor a comparison of runs depends on them.
OF_COMPARISONS = ("reference", "cst_bands", "bcva_bands", "small_group", "relevant_difference", "power")


class EvaluateSettings(Settings):
    """Comparison of arms on test patients: metrics, bootstrap confidence intervals, subgroups."""

    reference: str = Field("scratch-finetune", description="arm with which the others are compared")
    labels: list[str] | None = Field(
        None, description="labels that are compared and averaged (macro), also externally; null: all of the cohort"
    )
    resamples: int = Field(1000, ge=100, description="number of bootstrap resamples of test patients")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of every confidence interval")
    interval: Literal["percentile", "bca"] = Field(
        "percentile", description="kind of bootstrap interval; bca: bias-corrected and accelerated (Efron 1987)"
    )
    small_sample_correction: bool = Field(
        True, description="widen intervals and p for few test patients: to 96.8 % for 95 % with 20 (Hesterberg 2015)"
    )
    operating_point: float = Field(
        0.9, gt=0, lt=1, description="specificity (and sensitivity) at which thresholds are set on validation patients"
    )
    pooling: Literal["mean", "max"] = Field(
        "mean", description="aggregation of the scores of a patient's scans into one score"
    )
    bins: int = Field(10, ge=2, description="bins of the calibration error, with equal numbers of scans")
    min_positive_patients: int = Field(
        10, ge=1, description="labels with fewer positive patients in the labeled cohort are not evaluable"
    )
    primary_positive_patients: int = Field(25, ge=1, description="labels with fewer are marked exploratory")
    min_test_patients: int = Field(
        3, ge=2, description="labels with fewer positive, or fewer negative, test patients are not evaluable"
    )
    cst_bands: list[float] = Field(
        [320.0, 400.0], description="subgroups: boundaries between bands of central retinal thickness, µm"
    )
    bcva_bands: list[float] = Field(
        [70.0, 80.0], description="subgroups: boundaries between bands of visual acuity, letters (70: Snellen 20/40)"
    )
    small_group: int = Field(10, ge=2, description="subgroups with fewer test patients are marked as small")
    relevant_difference: float = Field(
        0.02, gt=0, lt=1, description="difference of two arms in the leading metric for which test patients are counted"
    )
    power: float = Field(
        0.8, gt=0.5, lt=1, description="probability of showing that difference, for the number of test patients"
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of the bootstrap")
    external: list[ExternalSettings] = Field(
        [],
        description="cohorts that no arm has seen, such as those of another hospital, on which all classifiers are "
        "tested: docs/external_validation.md",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name, bands in (("cst_bands", self.cst_bands), ("bcva_bands", self.bcva_bands)):
            if bands != sorted(set(bands)):
                raise ValueError(f"{name}: {bands}; expected ascending values, each once")
        return self

    @model_validator(mode="after")
    def _different_names(self) -> Self:
        checked("external", check_once, [external.name.casefold() for external in self.external])
        return self

    def needed(self) -> dict[str, Any]:
        """Return the settings on which the internal comparison depends, as plain values."""
        return self.model_dump(mode="json", exclude={"external"})

    def needed_externally(self) -> dict[str, Any]:
        """Return the settings on which external validation depends, but the cohorts, as plain values."""
        return self.model_dump(mode="json", exclude={"external", *OF_COMPARISONS})
