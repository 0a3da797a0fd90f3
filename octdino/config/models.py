"""Settings of backbones: timm name, arguments of timm.create_model, file of weights."""

from pathlib import Path

from pydantic import Field

from octdino.config.networks import TimmArgs, TimmName
from octdino.config.settings_base import Settings


class ModelSettings(Settings):
    """A backbone: a timm model and the arguments of `timm.create_model`."""

    timm: TimmName = Field(description="name of the timm model")
    args: TimmArgs = Field({}, description="further arguments of timm.create_model")
    weights: Path | None = Field(
        None,
        description="local file of weights for the imagenet arms (timm's, torchvision's, DINO's, DINOv2's or lightly's "
        ".pth or .safetensors); null: timm's download",
    )
