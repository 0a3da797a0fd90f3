"""Settings of the embed stage: the input size and the read-out of the features of every scan."""

from pydantic import Field

from octdino.config.names import Readout
from octdino.config.settings_base import Settings


class EmbedSettings(Settings):
    """Features of every scan, computed once per backbone, for probes, retrieval and the map of scans."""

    size: int | None = Field(None, ge=16, description="px, side of the input; null: classify.augment.global_size")
    readout: Readout = Field(
        "layers",
        description="pooled: features of the model without its classifier head; layers: with those of earlier layers, "
        "of a CNN's last three stages or of a ViT's last four blocks",
    )
