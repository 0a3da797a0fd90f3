"""Settings of backbones: timm name, arguments of timm.create_model, published weights and their input."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from octdino.config.methods import METHODS
from octdino.config.networks import TimmArgs, TimmName
from octdino.config.preprocessor import PublishedInput, read_preprocessor
from octdino.config.settings_base import Settings
from octdino.config.weights_layouts import LAYOUTS, Layout, LayoutName

NEWER = ("layout", "input_size", "mean", "std", "license")  # than existing results: left out at their default
OF_INPUT = ("input_size", "mean", "std")  # of arms whose init is the name of the entry
SAFETENSORS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"  # of Hugging Face
# Keys of preprocessor_config.json that the entry's own settings replace
SIZED = ("size", "crop_size")
NORMALIZED = ("image_mean", "image_std", "do_normalize", "do_rescale", "rescale_factor")


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
        return self.weights is not None or (self.layout != "auto" and not self.layout_info.needs_file)

    @property
    def weights_file(self) -> Path | None:
        """The file of the weights; of a Hugging Face folder the one in it."""
        if self.weights is None or self.layout != "huggingface" or self.weights.suffix == ".safetensors":
            return self.weights
        return self.weights / SAFETENSORS

    @property
    def weights_files(self) -> list[Path]:
        """The files that the weights are read from: their own and, of a Hugging Face folder, config.json."""
        if self.weights_file is None:
            return []
        config = [self.weights_file.with_name(CONFIG)] if self.layout == "huggingface" else []
        return [self.weights_file, *config]

    @property
    def preprocessor_file(self) -> Path | None:
        """The preprocessor_config.json of a Hugging Face folder, which has the input; None where there is none."""
        if self.weights_file is None or self.layout != "huggingface":
            return None
        path = self.weights_file.with_name(PREPROCESSOR)
        return path if path.exists() else None

    @property
    def layout_info(self) -> Layout:
        """What is known of the layout of the weights."""
        return LAYOUTS[self.layout]

    def needed(self, *, as_init: bool = False, as_start: bool = False, as_imagenet: bool = False) -> Self:
        """Return a copy in which the settings that a run does not depend on have their defaults.

        Args:
            as_init: of an arm whose init is the name of this entry, which depends on all settings.
            as_start: of a pretraining that starts from this entry's weights: on all but the input.
            as_imagenet: of an arm whose init is imagenet: on all but input and license. Without any of the three the
                run does not start from this entry's weights, and does not depend on their layout.
        """
        if as_init:
            return self
        unused = [*OF_INPUT, *(() if as_start else ("license",)), *(() if as_start or as_imagenet else ("layout",))]
        return self.model_copy(update={name: type(self).model_fields[name].default for name in unused})

    @property
    def weights_license(self) -> str | None:
        """The license of the weights, as far as it is known."""
        return self.license or self.layout_info.license


def published_input(model: ModelSettings) -> PublishedInput:
    """Return the input of arms whose init is the name of this entry: its settings, or its folder's, or its layout's.

    Raises:
        UserError: preprocessor_config.json of its Hugging Face folder has a value that it may not have.
    """
    info = model.layout_info
    found = PublishedInput(info.size, info.mean, info.std)
    if model.preprocessor_file is not None:
        sized = SIZED if model.input_size else ()
        found = read_preprocessor(model.preprocessor_file, (*sized, *(NORMALIZED if model.mean else ())))
    if model.mean is not None and model.std is not None:
        found = found._replace(mean=tuple(model.mean), std=tuple(model.std))
    return found._replace(size=model.input_size or found.size)


def starts_published(init: str, model: ModelSettings, *, pretrained: bool) -> bool:
    """Whether a network of an init starts from the published weights of its backbone's entry in `models`.

    Args:
        init: of an arm, of embeddings or of an explained network.
        model: the entry of its backbone.
        pretrained: it starts from a pretraining run.
    """
    return model.published and not pretrained and init not in ("scratch", "imagenet", *METHODS)


def published_part(init: str, model: ModelSettings, sha256: str | None) -> dict[str, Any] | None:
    """Return what metadata say of published weights that an arm starts from; None where it starts elsewhere.

    Args:
        sha256: of the file of the first weights; None: timm's download, or random weights.
    """
    if not starts_published(init, model, pretrained=model.weights is None and sha256 is not None):
        return None
    used = published_input(model)
    return {
        "layout": model.layout,
        "license": model.weights_license,
        "file": model.weights_file.name if model.weights_file else None,
        "sha256": sha256,
        "data": model.layout_info.data or None,
        "standardized_by": "cohort" if used.mean is None else "published",
    }
