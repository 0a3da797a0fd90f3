"""The part of metadata about published weights that a classifier starts from, itself or by way of a pretraining."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from octdino.config.settings_base import Settings
from octdino.config.weights_layouts import LAYOUTS


class PublishedPart(Settings):
    """Published weights, see `octdino.config.models.published_part`.

    Attributes:
        layout: whose names the file had.
        license: of the weights; None where it is not known.
        file: its name; None: timm's download.
        sha256: of the file.
        data: what they were trained on, in words.
        standardized_by: whose mean and standard deviation the input has.
        continued_by: name of the pretraining that continued from them; None: the classifier starts from them itself.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    layout: str
    license: str | None = None
    file: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    data: str | None = None
    standardized_by: Literal["cohort", "published"] = "cohort"
    continued_by: str | None = None


def continued_part(metadata: Mapping[str, Any], where: str) -> PublishedPart | None:
    """Return the published weights that a pretraining continued from, itself or by way of earlier ones; None: none.

    Args:
        metadata: of the pretraining, backbone.json.
        where: its path, for messages.

    Raises:
        UserError: a value is of another type than it has to be.
    """
    start = metadata.get("start")
    while isinstance(start, Mapping) and isinstance(start.get("start"), Mapping):
        start = start["start"]
    if not isinstance(start, Mapping) or start.get("cohort"):  # random weights, or those of a run that began with them
        return None
    known = {key: start[key] for key in ("layout", "license", "sha256") if start.get(key) is not None}
    if start.get("from") == "imagenet" and not {"layout", "license"} & known.keys():
        return None
    layout = LAYOUTS.get(str(known.get("layout")))
    values = {"layout": "auto", **known, "data": layout.data or None if layout else None}
    return PublishedPart.parse({**values, "continued_by": metadata.get("name")}, f"{where}: start")
