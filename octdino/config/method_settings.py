"""Base class of the settings of every pretraining method: optimizer, schedules, initial weights."""

import math
from bisect import bisect_right
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from octdino.config.names import check_once
from octdino.config.settings_base import Settings, checked

SIZES = (20_000, 50_000, 100_000, 200_000, 500_000)  # scans: from these on the next column of `by_size` holds
# Of methods by their loss, after the survey of Balestriero et al. 2023, https://arxiv.org/abs/2304.12210. MoCo has a
# moving average as self-distillation has, and a contrastive loss: metric learning.
Family = Literal["metric learning", "self-distillation", "canonical correlation", "masked image modeling"]


class MethodSettings(Settings):
    """Settings of every method: optimizer and schedules. Learning rates are per 256 images, scaled with the batch."""

    family: ClassVar[Family]
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {}
    needs_patches: ClassVar[bool] = False  # trains vision transformers only

    method: str
    backbones: list[str] | None = Field(
        None, min_length=1, description="those of pretrain.backbones that the workflow trains with it; null: all"
    )
    init: str | None = Field(
        None,
        description="initial weights of the backbone; null: random; imagenet: the model's `weights`, or timm's "
        "download; the name of an entry of models: its published weights, on this backbone alone; or the folder of an "
        "earlier run, in which {backbone}, {fold} and {seed} are replaced",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW for ViTs and small data, SGD for long runs")
    lr: float = Field(1e-3, gt=0, description="peak learning rate for a batch of 256")
    lr_scaling: Literal["linear", "sqrt", "none"] = Field(
        "linear", description="scaling of lr with batch_size / 256 (linear: Goyal 2017; sqrt: DINOv2)"
    )
    min_lr: float = Field(1e-6, ge=0, description="learning rate at the end of the cosine schedule")
    warmup: float = Field(0.1, ge=0, le=0.5, description="share of the run in which the learning rate rises from 0")
    weight_decay: float = Field(0.04, ge=0, description="weight decay at the start; none on biases and norms")
    weight_decay_end: float = Field(0.04, ge=0, description="weight decay at the end, on a cosine")
    clip_grad: float | None = Field(3.0, gt=0, description="global gradient norm; null: no clipping")

    @model_validator(mode="after")
    def _fillable(self) -> Self:
        checked("backbones", check_once, self.backbones or [])
        try:
            parts = list(Formatter().parse(self.init or ""))
        except ValueError:  # a brace without its other half
            parts = [("{", None, None, None)]
        for text, field, form, conversion in parts:
            if {"{", "}"} & set(text) or field not in (None, "backbone", "fold", "seed") or form or conversion:
                raise ValueError("init: the placeholders are {backbone}, {fold} and {seed}")
        return self

    def starts_from_file(self, backbone: str) -> bool:
        """Whether a run starts from the file or the download of its backbone's entry in models."""
        return self.init in ("imagenet", backbone)

    def start_folder(self, backbone: str, fold: int | str, seed: int) -> str | None:
        """Return the folder of the earlier run whose weights a run starts from, or None."""
        if self.init is None or self.starts_from_file(backbone):
            return None
        return str(Path(self.init.format(backbone=backbone, fold=fold, seed=seed)))

    def resolved(self, scans: int) -> Self:
        """Return a copy with a value, by the number of scans, for every setting of `by_size` that is null."""
        column = bisect_right(SIZES, scans)
        chosen = {name: row[column] for name, row in self.by_size.items() if getattr(self, name) is None}
        return self.model_copy(update=chosen)

    def for_backbone(self, batch_norm: bool) -> Self:
        """Return a copy with a value for every null setting that depends on whether the backbone has batch norm."""
        return self

    @property
    def adam_betas(self) -> tuple[float, float]:
        """Return AdamW's two decay rates; torch's defaults."""
        return 0.9, 0.999

    def peak_lr(self, batch: int) -> float:
        """Return the peak learning rate for a batch of `batch` images."""
        power = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}[self.lr_scaling]
        return self.lr * math.pow(batch / 256, power)
