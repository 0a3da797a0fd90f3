"""Settings of backbones: timm name, arguments of timm.create_model, published weights and their input."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from octdino.config.networks import TimmArgs, TimmName
from octdino.config.settings_base import Settings
from octdino.config.weights_layouts import LAYOUTS, Layout, LayoutName

NEWER = ("layout", "input_size", "mean", "std", "license")  # than existing results: left out at their default
SAFETENSORS = "model.safetensors"  # of a Hugging Face folder


class ModelSettings(Settings):
    """A backbone: a timm model and the arguments of `timm.create_model`."""

    timm: TimmName = Field(description="name of the timm model")
    args: TimmArgs = Field({}, description="further arguments of timm.create_model")
    weights: Path | None = Field(
        None,
        description="local file of weights (timm's, torchvision's, DINO's, DINOv2's or lightly's .pth or .safetensors, "
        "or of a layout below) for arms whose init is the name of this entry, and for the imagenet arms on this "
        "backbone; null: timm's download",
    )
    layout: LayoutName = Field(
        "auto",
        description="whose names the tensors of the weights have, and whose input arms of this entry's name take; "
        "huggingface: a folder with config.json and model.safetensors; timm without weights: timm's download",
    )
    input_size: int | None = Field(
        None,
        ge=16,
        description="px, side of the input of arms whose init is the name of this entry; null: the layout's, or that "
        "of all other arms",
    )
    mean: list[float] | None = Field(
        None,
        description="per channel of the published network, of pixels in [0, 1], for the same arms; null: the layout's, "
        "or the cohort's",
    )
    std: list[float] | None = Field(None, description="the same for the standard deviation")
    license: str | None = Field(
        None, description="license of the weights, which metadata and page name; null: the layout's"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, values: Any) -> Any:
        """Add the arguments in which the published network of the layout differs from timm's."""
        if not isinstance(values, dict) or not isinstance(values.get("timm"), str):
            return values
        layout, args = LAYOUTS.get(str(values.get("layout"))), values.get("args") or {}
        if layout is None or not layout.args or not isinstance(args, dict) or "vit" not in values["timm"]:
            return values
        return values | {"args": {**layout.args, **args}}

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"{'std' if self.std is None else 'mean'}: missing; give mean and std together, or neither"
            )
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
                raise ValueError(f"mean: {len(self.mean)} values and {len(self.std)} of std; expected 1 or 3 of each")
            if min(self.std) <= 0:
                raise ValueError(f"std: {min(self.std)}; expected numbers above 0")
        return self

    @model_serializer(mode="wrap")
    def _without_newer_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {key: each for key, each in values.items() if key not in NEWER or each != fields[key].default}

    @property
    def published(self) -> bool:
        """Whether arms can start from this entry by its name: it has weights, or timm downloads them."""
        return self.weights is not None or self.layout == "timm"

    @property
    def weights_file(self) -> Path | None:
        """The file of the weights; of a Hugging Face folder the one in it."""
        if self.weights is None or self.layout != "huggingface" or self.weights.suffix == ".safetensors":
            return self.weights
        return self.weights / SAFETENSORS

    @property
    def form(self) -> Layout:
        """The layout of the weights."""
        return LAYOUTS[self.layout]

    @property
    def weights_license(self) -> str | None:
        """The license of the weights, as far as it is known."""
        return self.license or self.form.license


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
        return _as_channels(self.mean, channels), _as_channels(self.std, channels)


def _as_channels(values: Sequence[float], channels: int) -> list[float]:
    return list(values) if len(values) == channels else [round(sum(values) / len(values), 6)] * channels


def published_input(model: ModelSettings) -> PublishedInput:
    """Return the input of arms whose init is the name of this entry: its settings, or its folder's, or its layout's.

    Reads preprocessor_config.json of a Hugging Face folder, where it exists.
    """
    form = model.form
    size, mean, std = form.size, form.mean, form.std
    if model.layout == "huggingface" and (file := model.weights_file) is not None:
        size, mean, std = _preprocessing(file.with_name("preprocessor_config.json"))
    if model.mean is not None and model.std is not None:
        mean, std = tuple(model.mean), tuple(model.std)
    return PublishedInput(model.input_size or size, mean, std)


def _preprocessing(path: Path) -> tuple[int | None, tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return size, mean and std as transformers' image processors write them; None where they do not."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None, None, None
    if not isinstance(found, dict):
        return None, None, None
    size = found.get("crop_size") if found.get("do_center_crop") else found.get("size")
    size = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    mean, std = (_numbers(found.get(key)) for key in ("image_mean", "image_std"))
    if found.get("do_normalize") is False or not mean or not std or len(mean) != len(std) or min(std) <= 0:
        mean = std = None
    return size if isinstance(size, int) and size >= 16 else None, mean, std


def _numbers(values: Any) -> tuple[float, ...] | None:
    if not isinstance(values, list) or not all(isinstance(each, float | int) for each in values):
        return None
    return tuple(map(float, values))


def published_part(init: str, model: ModelSettings, sha256: str | None) -> dict[str, Any] | None:
    """Return what metadata say of published weights that an arm starts from; None where it starts elsewhere.

    Args:
        sha256: of the file of the first weights; None: timm's download, or random weights.
    """
    downloaded = model.layout == "timm" and sha256 is None
    if init in ("scratch", "imagenet") or not (model.weights or downloaded):
        return None
    used = published_input(model)
    return {
        "layout": model.layout,
        "license": model.weights_license,
        "file": model.weights_file.name if model.weights_file else None,
        "sha256": sha256,
        "data": model.form.data or None,
        "standardized_by": "cohort" if used.mean is None else "published",
    }
