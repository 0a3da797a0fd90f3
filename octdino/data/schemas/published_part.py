"""The part of metadata about published weights that a classifier starts from."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from octdino.config.settings_base import Settings


class PublishedPart(Settings):
    """Published weights, see `octdino.config.models.published_part`.

    Attributes:
        layout: whose names the file had.
        license: of the weights; None where it is not known.
        file: its name; None: timm's download.
        sha256: of the file.
        data: what they were trained on, in words.
        standardized_by: whose mean and standard deviation the input has.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    layout: str
    license: str | None = None
    file: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    data: str | None = None
    standardized_by: Literal["cohort", "published"] = "cohort"
