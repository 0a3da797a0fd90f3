"""The setting `tracking`: where training histories go beside history.csv."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from octdino.config.settings_base import as_list

TrackerName = Literal["auto", "none", "tensorboard", "wandb", "mlflow", "trackio"]
TRACKING = (
    "where the history goes, one or several; auto: TensorBoard's event files if that package is installed; wandb, "
    "mlflow and trackio stay on this machine unless the environment says otherwise: docs/tracking.md"
)


def _fit_together(names: list[TrackerName]) -> list[TrackerName]:
    """Refuse `none` beside a tracker, and a tracker given twice."""
    if "none" in names and len(names) > 1:
        raise PydanticCustomError("tracking", "none stands alone")
    if len(set(names)) < len(names):
        raise PydanticCustomError("tracking", "each tracker once")
    return names


Trackers = Annotated[
    list[TrackerName],
    BeforeValidator(as_list, json_schema_input_type=TrackerName | list[TrackerName]),
    AfterValidator(_fit_together),
    Field(min_length=1),
]
