"""Settings of the random views: crops, rotation, gray levels, color, blur and speckle."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from octdino.config.settings_base import Settings

VIEWS = "; three values: of the first large view, the second, and all small ones"
SMALL_VIEWS = frozenset({"local_size", "local_views", "local_scale"})  # keys of pretraining only


def _per_view(value: Any) -> tuple[float, ...]:
    """Return three probabilities from one (for all views) or three."""
    given = list(value) if isinstance(value, list | tuple) else [value]
    try:
        found = tuple(float(one) for one in given)
    except (TypeError, ValueError):
        found = ()
    if len(found) not in (1, 3) or not all(0 <= one <= 1 for one in found):
        raise PydanticCustomError("per_view", "expected one probability from 0 to 1, or three:" + VIEWS.split(":")[-1])
    return found * 3 if len(found) == 1 else found


Three = tuple[float, float, float]
PerView = Annotated[Three, BeforeValidator(_per_view, json_schema_input_type=float | Three)]


class ColorSettings(Settings):
    """Color jitter and grayscale of RGB cohorts; on gray scans each must be 0."""

    saturation_max: float = Field(
        0.0, ge=0, le=1, description="largest change of saturation, as a share, either way (0.4 on photographs)"
    )
    hue_max: float = Field(
        0.0, ge=0, le=0.5, description="largest shift of hue, as a share of the color circle (0.1 on photographs)"
    )
    gray_p: float = Field(0.0, ge=0, le=1, description="probability of conversion to gray (0.2 on photographs)")


class AugmentSettings(Settings):
    """Augmentation (random views): weak by default, for OCT; no vertical flip; color only for RGB cohorts."""

    global_size: int = Field(96, ge=16, description="px, side of the large views")
    local_size: int = Field(48, ge=16, description="px, side of the small views")
    local_views: int = Field(4, ge=0, description="small views per image (multi-crop), for the methods that use them")
    global_scale: tuple[float, float] = Field((0.4, 1.0), description="share of the image's area in a large view")
    local_scale: tuple[float, float] = Field((0.08, 0.4), description="share of the image's area in a small view")
    ratio: tuple[float, float] = Field((0.8, 1.25), description="aspect ratio of a view before it is resized")
    flip_p: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    rotate_degrees: float = Field(8.0, ge=0, le=180, description="largest rotation in degrees, either way")
    brightness_max: float = Field(
        0.2, ge=0, le=1, description="largest change of brightness, as a share, either way (0.4 on photographs)"
    )
    contrast_max: float = Field(
        0.2, ge=0, le=1, description="largest change of contrast, as a share, either way (0.4 on photographs)"
    )
    jitter_p: float = Field(
        1.0,
        ge=0,
        le=1,
        description="probability of the changes of brightness, contrast, saturation and hue (0.8 on photographs)",
    )
    color: ColorSettings = ColorSettings()
    gamma_max: float = Field(1.25, ge=1, description="largest exponent of a gamma correction; its inverse the smallest")
    blur_p: PerView = Field((0.3, 0.3, 0.3), description=f"probability of a Gaussian blur{VIEWS} (1, 0.1, 0.5 in DINO)")
    blur_sigma: tuple[float, float] = Field((0.1, 1.0), description="px in the view, standard deviation of the blur")
    speckle_max: float = Field(0.1, ge=0, le=1, description="largest standard deviation of multiplicative noise")
    solarize_p: PerView = Field(
        (0.0, 0.0, 0.0), description=f"probability of inverting bright pixels{VIEWS} (0, 0.2, 0 on photographs in DINO)"
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}: 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio: 0 < low <= high")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1] <= 10:
            raise ValueError("blur_sigma: 0 < low <= high <= 10")
        return self
