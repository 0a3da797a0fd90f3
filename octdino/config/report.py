"""Settings of the report stage: the page."""

from pydantic import Field

from octdino.config.settings_base import Settings


class ReportSettings(Settings):
    """The page."""

    title: str = Field("Does self-supervised pretraining find retinal biomarkers better?")
    examples: int = Field(8, ge=0, description="example scans with predictions")
    mistakes: int = Field(2, ge=0, description="worst misses and worst false alarms shown of each label")
    license: str | None = Field(None, description="of the data, as their owners give it; stands in the data card")
