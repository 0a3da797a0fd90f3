"""Settings of backbones: timm's name, its arguments, a file of weights."""

from pathlib import Path

from pydantic import Field

from octdino.config.networks import TimmArgs, TimmName
from octdino.config.settings_base import Settings


class ModelSettings(Settings):
    """A backbone: a timm model and the arguments that `timm.create_model` takes."""

    timm: TimmName = Field(description="timm's name")
    args: TimmArgs = Field({}, description="further arguments of timm.create_model")
    weights: Path | None = Field(
        None,
        description="local file of weights for the imagenet arms (timm's, torchvision's, DINO's, DINOv2's or lightly's "
        ".pth or .safetensors); null: timm's download",
    )
