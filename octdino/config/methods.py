"""Settings of the pretraining methods, one class per method, and the registry `METHODS`.

A method is this class, the registry line below and `octdino/pretrain/methods/{name}.py`. The settings are here and not
beside the method because the Snakefile reads them and must not import torch.

Settings that depend on the number of scans default to null: by the cohort's size (`by_size`). For 500,000 scans and
more they are the paper's; for fewer they are values that work on small data (LightlyTrain).
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from octdino.config.eye_visits import VisitLimits, VisitViews
from octdino.config.method_settings import Family, MethodSettings

HEAD = (512, 512, 1024, 2048, 2048, 2048)
WIDE_HEAD = (512, 1024, 2048, 4096, 4096, 4096)


class PrototypeSettings(MethodSettings):
    """Self-distillation over prototypes: settings of DINO and DINOv2 (by size: LightlyTrain's values)."""

    family: ClassVar[Family] = "self-distillation"
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {
        "prototypes": (1024, 2048, 4096, 16384, 32768, 65536),
        "hidden_dim": HEAD,
        "bottleneck_dim": (128, 128, 256, 256, 256, 256),
        "teacher_temp": (0.02, 0.02, 0.02, 0.03, 0.03, 0.07),
        "teacher_temp_start": (0.02, 0.02, 0.02, 0.02, 0.02, 0.04),
        "momentum": (0.99, 0.99, 0.99, 0.991, 0.992, 0.996),
    }

    weight_decay_end: float = Field(0.4, ge=0, description="weight decay at the end, on a cosine")
    prototypes: int | None = Field(None, ge=2, description="K, the head's outputs; null: by the cohort's size")
    hidden_dim: int | None = Field(None, ge=8, description="width of the head's hidden layers; null: by size")
    bottleneck_dim: int | None = Field(None, ge=8, description="width before the prototypes; null: by size")
    head_norm: bool | None = Field(
        None,
        description="batch norm after the head's hidden layers; null: where the backbone has batch norm, so none for "
        "vision transformers, as in the papers",
    )
    bottleneck_norm: bool | None = Field(
        None, description="batch norm without scale before the prototypes, which no paper has; null: as head_norm"
    )
    student_temp: float = Field(0.1, gt=0, description="temperature of the student's softmax")
    teacher_temp: float | None = Field(
        None, gt=0, description="temperature of the teacher's softmax after warm-up; null: by the cohort's size"
    )
    teacher_temp_start: float | None = Field(
        None, gt=0, description="temperature at the first step; null: by the cohort's size"
    )
    teacher_temp_warmup: float = Field(0.3, ge=0, le=1, description="share of the run in which it rises")
    momentum: float | None = Field(
        None, ge=0, le=1, description="teacher's EMA at the start; null: by the cohort's size"
    )
    momentum_end: float = Field(1.0, ge=0, le=1, description="teacher's EMA at the end, on a cosine")
    centering: Literal["mean", "sinkhorn", "none"] = Field(
        "mean",
        description="of the teacher's outputs; mean: the paper's center; sinkhorn: SwAV's, which settles in fewer "
        "steps; none: collapses",
    )
    center_momentum: float = Field(0.9, ge=0, lt=1, description="EMA of the mean center")
    freeze_last_layer: float = Field(
        0.05, ge=0, le=1, description="share of the run in which the prototypes are frozen"
    )

    def for_backbone(self, batch_norm: bool) -> Self:
        head = batch_norm if self.head_norm is None else self.head_norm
        bottleneck = head if self.bottleneck_norm is None else self.bottleneck_norm
        return self.model_copy(update={"head_norm": head, "bottleneck_norm": bottleneck})


class DinoSettings(PrototypeSettings, VisitViews):  # the first one's defaults hold
    """DINO (Caron et al. 2021)."""

    method: Literal["dino"] = "dino"


class Dinov2Settings(PrototypeSettings):
    """DINOv2 (Oquab et al. 2023): vision transformers only."""

    needs_patches: ClassVar[bool] = True

    method: Literal["dinov2"] = "dinov2"
    lr: float = Field(2e-3, gt=0, description="peak learning rate for a batch of 256 (the paper's 4e-3 for 1024)")
    lr_scaling: Literal["linear", "sqrt", "none"] = Field(
        "sqrt", description="scaling of lr with batch_size / 256 (linear: Goyal 2017; sqrt: DINOv2)"
    )
    centering: Literal["mean", "sinkhorn", "none"] = Field(
        "sinkhorn", description="of views and of patches; mean: DINO's center; sinkhorn: SwAV's; none: collapses"
    )
    mask_probability: float = Field(0.5, gt=0, le=1, description="share of large views with patches masked")
    mask_ratio: tuple[float, float] = Field((0.1, 0.5), description="share of patches masked, from and to")
    patch_weight: float = Field(1.0, ge=0, description="weight of iBOT's loss on masked patches")
    koleo_weight: float = Field(0.1, ge=0, description="weight of the KoLeo loss, which spreads features")
    koleo_neighbors: Literal["all", "other_eyes", "other_patients"] = Field(
        "other_eyes", description="scans that KoLeo pushes apart: slices of one volume are near-duplicates"
    )
    shared_head: bool = Field(False, description="one head for views and patches (iBOT) instead of one each (DINOv2)")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 0 < self.mask_ratio[0] <= self.mask_ratio[1] <= 1:
            raise ValueError("mask_ratio: 0 < low <= high <= 1")
        return self


class ByolSettings(MethodSettings):
    """BYOL (Grill et al. 2020)."""

    family: ClassVar[Family] = "self-distillation"
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_dim": WIDE_HEAD,
        "momentum": (0.99, 0.99, 0.99, 0.991, 0.992, 0.996),
    }

    method: Literal["byol"] = "byol"
    hidden_dim: int | None = Field(
        None, ge=8, description="width of the projector's and the predictor's hidden layer; null: by size"
    )
    out_dim: int = Field(256, ge=2, description="width of the projected embeddings")
    momentum: float | None = Field(
        None, ge=0, le=1, description="teacher's EMA at the start; null: by the cohort's size"
    )
    momentum_end: float = Field(1.0, ge=0, le=1, description="teacher's EMA at the end, on a cosine")


class SimclrSettings(VisitViews):
    """SimCLR (Chen et al. 2020), NT-Xent loss."""

    family: ClassVar[Family] = "metric learning"
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {"hidden_dim": HEAD}

    method: Literal["simclr"] = "simclr"
    temperature: float = Field(0.1, gt=0, description="temperature of the softmax")
    hidden_dim: int | None = Field(None, ge=8, description="width of the head's hidden layer; null: by size")
    out_dim: int = Field(128, ge=2, description="width of the projected embeddings")
    negatives: Literal["all", "other_eyes", "other_patients"] = Field(
        "all", description="scans that are negatives of each other: slices of one volume are near-duplicates"
    )


class MocoSettings(MethodSettings):
    """MoCo: v2 with a queue of keys (He et al. 2020, Chen et al. 2020) and v3 without (Chen et al. 2021)."""

    family: ClassVar[Family] = "metric learning"
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_dim": WIDE_HEAD,
        "queue": (1024, 4096, 8192, 16384, 32768, 65536),
        "momentum": (0.99, 0.99, 0.99, 0.995, 0.998, 0.999),
    }

    method: Literal["moco"] = "moco"
    version: Literal["auto", "v2", "v3"] = Field("auto", description="auto: v3 for a VisionTransformer, v2 otherwise")
    temperature: float = Field(0.2, gt=0, description="temperature of the softmax")
    hidden_dim: int | None = Field(None, ge=8, description="width of the heads' hidden layers; null: by size")
    out_dim: int | None = Field(
        None, ge=2, description="width of the projected embeddings; null: the papers' 128 for v2, 256 for v3"
    )
    negatives: Literal["all", "other_eyes", "other_patients"] = Field(
        "all", description="scans that are negatives of each other; never a scan's own earlier keys in the queue"
    )
    queue: int | None = Field(None, ge=1, description="v2: number of the last keys that are negatives; null: by size")
    key_groups: int = Field(4, ge=1, description="v2: shuffled groups in which keys pass batch norm")
    momentum: float | None = Field(None, ge=0, le=1, description="v2: the key network's EMA, constant; null: by size")
    momentum_start: float = Field(0.99, ge=0, le=1, description="v3: the key network's EMA at the start, cosine to 1")
    frozen_patch_embed: bool = Field(True, description="v3: a VisionTransformer's patch projection is not trained")


class VicregSettings(MethodSettings):
    """VICReg (Bardes et al. 2022)."""

    family: ClassVar[Family] = "canonical correlation"
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {"width": (512, 1024, 2048, 4096, 8192, 8192)}

    method: Literal["vicreg"] = "vicreg"
    invariance: float = Field(25.0, ge=0, description="weight of the distance between a scan's two views")
    variance: float = Field(25.0, ge=0, description="weight of the hinge that keeps each dimension's deviation at 1")
    covariance: float = Field(1.0, ge=0, description="weight of the squared covariances between dimensions")
    width: int | None = Field(None, ge=8, description="width of all three layers of the expander; null: by size")


class SupconSettings(VisitLimits):
    """Supervised contrastive learning (Khosla et al. 2020) on clinical values (Kokilepersaud et al. 2023)."""

    family: ClassVar[Family] = "metric learning"
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {"hidden_dim": HEAD}

    newer: ClassVar[tuple[str, ...]] = ("soft", "positives_weeks", "positives_visits")

    method: Literal["supcon"] = "supcon"
    positives: list[Literal["bcva", "cst", "eye", "patient"]] = Field(
        ["cst"], min_length=1, description="scans with an equal value are positives; several: their losses are summed"
    )
    cst_bin: float = Field(25.0, gt=0, description="µm; central subfield thickness is binned to this width")
    bcva_bin: float = Field(5.0, gt=0, description="letters; visual acuity is binned to this width")
    soft: bool = Field(
        False,
        description="bcva and cst as soft targets: scans are positives with a weight, 1 for equal values, falling to 0 "
        "for values a whole bin apart; false: those of one bin, all alike",
    )
    temperature: float = Field(0.07, gt=0, description="temperature of the softmax")
    hidden_dim: int | None = Field(None, ge=8, description="width of the head's hidden layer; null: by size")
    out_dim: int = Field(128, ge=2, description="width of the projected embeddings")
    negatives: Literal["all", "other_eyes", "other_patients"] = Field(
        "all", description="scans that are negatives of each other: slices of one volume are near-duplicates"
    )

    @property
    def compared_by(self) -> list[str]:
        return [*self.positives, *(["visit"] if self.limited else [])]

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.soft and not {"bcva", "cst"} & set(self.positives):
            raise ValueError("soft: only measured values are near or far; expected bcva or cst among positives")
        return self


class MaeSettings(MethodSettings):
    """Masked autoencoder (He et al. 2022): vision transformers only."""

    family: ClassVar[Family] = "masked image modeling"
    needs_patches: ClassVar[bool] = True
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (1e-3, 1e-3, 5e-4, 5e-4, 3e-4, 1.5e-4),
        "decoder_dim": (128, 192, 256, 384, 512, 512),
        "decoder_depth": (2, 2, 4, 4, 8, 8),
    }

    method: Literal["mae"] = "mae"
    lr: float | None = Field(  # type: ignore[assignment]  # resolved it is a number, as in the base class
        None, gt=0, description="peak learning rate for a batch of 256; null: by the cohort's size"
    )
    weight_decay: float = Field(0.05, ge=0, description="weight decay at the start; none on biases and norms")
    weight_decay_end: float = Field(0.05, ge=0, description="weight decay at the end, on a cosine")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's decay rates of the moments of the gradient")
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of patches masked; the encoder sees the others only")
    decoder_dim: int | None = Field(
        None, ge=32, multiple_of=32, description="width of the decoder, 32 per attention head; null: by size"
    )
    decoder_depth: int | None = Field(None, ge=1, description="blocks of the decoder; null: by size")
    crop_scale: tuple[float, float] = Field((0.2, 1.0), description="share of the image's area in the one view")
    crop_only: bool = Field(
        True, description="the view is cropped and flipped only, as in the paper; false: all of pretrain.augment"
    )

    @property
    def adam_betas(self) -> tuple[float, float]:
        return self.betas

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("crop_scale: 0 < low <= high <= 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas: 0 <= beta < 1")
        return self


class LejepaSettings(MethodSettings):
    """LeJEPA (Balestriero & LeCun 2025): views predict each other, embeddings are made normal by SIGReg."""

    family: ClassVar[Family] = "joint-embedding prediction"
    by_size: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_dim": HEAD,
        "out_dim": (16, 16, 32, 64, 128, 128),
        "directions": (256, 256, 256, 512, 1024, 1024),
    }

    method: Literal["lejepa"] = "lejepa"
    regularization: float = Field(
        0.02, gt=0, lt=1, description="weight of SIGReg; that of the prediction is 1 minus it: the only trade-off"
    )
    hidden_dim: int | None = Field(None, ge=8, description="width of the head's two hidden layers; null: by size")
    out_dim: int | None = Field(None, ge=2, description="width of the embeddings; null: by the cohort's size")
    directions: int | None = Field(
        None, ge=1, description="random projections per step in which SIGReg tests normality; null: by size"
    )


METHODS: dict[str, type[MethodSettings]] = {
    "dino": DinoSettings,
    "dinov2": Dinov2Settings,
    "byol": ByolSettings,
    "simclr": SimclrSettings,
    "moco": MocoSettings,
    "vicreg": VicregSettings,
    "supcon": SupconSettings,
    "mae": MaeSettings,
    "lejepa": LejepaSettings,
}
