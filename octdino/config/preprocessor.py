"""The input of published networks, and preprocessor_config.json of a Hugging Face folder, which describes it.

The image processors of transformers resize an image, multiply its pixels, from 0 to 255, by `rescale_factor`, and
standardize them; each step can be switched off. Source:
https://huggingface.co/docs/transformers/main_classes/image_processor
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from octdino.config.settings_base import Settings
from octdino.errors import UserError

LEAST_SIDE = 16  # px
Positive = Annotated[float, Field(gt=0)]


class PublishedInput(NamedTuple):
    """The input of a published network; None: as the other arms have it.

    Attributes:
        size: px, the side.
        mean, std: per channel of the published network, of pixels in [0, 1].
    """

    size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def for_channels(self, channels: int) -> tuple[list[float], list[float]] | None:
        """Return mean and std for a store with this number of channels; their means where the numbers differ."""
        if self.mean is None or self.std is None:
            return None
        return _for_channels(self.mean, channels), _for_channels(self.std, channels)


def _for_channels(values: tuple[float, ...], channels: int) -> list[float]:
    return list(values) if len(values) == channels else [round(sum(values) / len(values), 6)] * channels


def _side(value: Any) -> Any:
    """Return the side in px of a size, which is a number, or a mapping with the shortest edge or with both sides."""
    sides = [value]
    if isinstance(value, dict):
        sides = [value["shortest_edge"]] if "shortest_edge" in value else [value.get("height"), value.get("width")]
    if value is not None and not all(type(side) is int and side >= LEAST_SIDE for side in sides):
        raise PydanticCustomError("side", "expected a side of {least} px or more, such as 224", {"least": LEAST_SIDE})
    if len(set(sides)) > 1:
        raise PydanticCustomError("square", "expected a square")
    return sides[0]


Side = Annotated[int | None, BeforeValidator(_side)]


class Preprocessor(Settings):
    """The keys of preprocessor_config.json that shape the input.

    Where `size`, or `image_mean` and `image_std`, are absent, the input is that of the other arms; without
    `do_center_crop` nothing is cropped. The other keys have the defaults of transformers.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    size: Side = None
    crop_size: Side = None
    do_center_crop: bool | None = None
    do_rescale: bool | None = None
    rescale_factor: Positive = 1 / 255
    do_normalize: bool | None = None
    image_mean: list[float] | None = None
    image_std: list[Positive] | None = None

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> Self:
        mean, std = self.image_mean, self.image_std
        if self.do_normalize is False or (mean is None and std is None):
            return self
        if mean is None or std is None or len(mean) != len(std) or len(mean) not in (1, 3):
            counts = " and ".join("none" if each is None else str(len(each)) for each in (mean, std))
            raise ValueError(f"image_mean, image_std: {counts} values; expected 1 or 3 of each")
        return self

    @property
    def input(self) -> PublishedInput:
        """The input that the processor makes, for pixels in [0, 1]; mean and std are None where the file has none."""
        size = self.crop_size if self.do_center_crop and self.crop_size else self.size
        scale = 255.0 if self.do_rescale is False else 255 * self.rescale_factor
        if self.do_normalize is False:
            return PublishedInput(size, (0.0,), (1 / scale,))
        if self.image_mean is None or self.image_std is None:
            return PublishedInput(size, None, None)
        mean, std = (tuple(value / scale for value in values) for values in (self.image_mean, self.image_std))
        return PublishedInput(size, mean, std)


def read_preprocessor(path: Path, unused: Collection[str] = ()) -> PublishedInput:
    """Return the input that a preprocessor_config.json describes.

    Args:
        unused: keys that are not read, because the configuration has their values.

    Raises:
        UserError: the file cannot be read, or a value is none that it may be.
    """
    values = read_json_object(path, "what transformers' save_pretrained writes")
    return Preprocessor.parse({key: each for key, each in values.items() if key not in unused}, str(path)).input


def read_json_object(path: Path, expected: str) -> dict[str, Any]:
    """Return the object in a JSON file of a Hugging Face folder; `octdino.data.atomic_files` reads those of octdino.

    Args:
        expected: what the file should be, for the message.

    Raises:
        UserError: the file cannot be read, or has no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = (error.strerror or "unreadable") if isinstance(error, OSError) else "no JSON"
        raise UserError(f"{path}: {why}; expected {expected}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object")
    return values
