"""Settings of the report stage: the page."""

from pydantic import Field

from octdino.config.settings_base import Settings


class ReportSettings(Settings):
    """The HTML page."""

    title: str | None = Field(None, description="title of the page; null: a question in the words of the cohort")
    examples: int = Field(8, ge=0, description="number of example scans with predictions")
    mistakes: int = Field(2, ge=0, description="number of worst misses and of worst false alarms shown per label")
    license: str | None = Field(
        None, description="license of the data, as their owners give it; the data card shows it"
    )
