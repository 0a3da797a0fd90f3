"""Settings of the report stage: the page, and numbers quoted on it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from octdino.config.names import (
    check_backbone_name,
    check_fraction,
)
from octdino.config.settings_base import Settings, checked


class NumberSettings(Settings):
    """Where a number on the page comes from: one cell of a results table."""

    table: Literal["metrics", "reported", "history", "jaccard"] = Field(
        "metrics",
        description="metrics: an arm on test scans; reported: an arm in the report's protocol, its best epoch; "
        "history: of a pretraining; jaccard: of an explained network",
    )
    name: str = Field(description="the arm; history: the method; jaccard: the init")
    backbone: str
    fraction: float = Field(1.0, description="metrics and reported: share of labelled training scans")
    column: str = Field("accuracy", description="metrics: the metric; history: the column; jaccard: the protocol")
    take: Literal["last", "max"] = Field("last", description="history: which epoch")
    blobs: Literal["kept", "removed"] = Field("kept", description="jaccard: minor blobs of the masks")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        checked("name", check_backbone_name, self.name)  # an arm's has a dash, like a backbone's
        checked("backbone", check_backbone_name, self.backbone)
        checked("fraction", check_fraction, self.fraction)
        return self


class QuotedSettings(Settings):
    """One number of the report that the project began with, and where ours stand."""

    item: str = Field(description="what was measured")
    source: str = Field(description="where in the report")
    value: float | None = Field(None, description="as it was reported, in percent; null: a figure without a number")
    fault: str = Field("", description="what is wrong with it")
    repeated: NumberSettings | None = Field(None, description="ours in the reported protocol")
    corrected: NumberSettings | None = Field(None, description="ours without the fault")


class ReportSettings(Settings):
    """The HTML page."""

    title: str = Field(
        "Does self-supervised pretraining find retinal biomarkers better?", description="title of the page"
    )
    examples: int = Field(8, ge=0, description="number of example scans with predictions")
    mistakes: int = Field(2, ge=0, description="number of worst misses and of worst false alarms shown per label")
    license: str | None = Field(
        None, description="license of the data, as their owners give it; the data card shows it"
    )
    quoted: list[QuotedSettings] = Field(
        [], description="numbers of the report that the project began with, in a table beside ours"
    )
