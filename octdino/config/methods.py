"""The pretraining methods: one settings class each, and the registry.

A method is this class, the registry line below and `octdino/pretrain/methods/{name}.py`. The settings live here and
not beside the method because the Snakefile reads them and must not import torch.
"""

from typing import Literal

from pydantic import Field

from octdino.config.base import Settings


class MethodSettings(Settings):
    """What every method has: its optimiser. Learning rates are per 256 images and scale linearly with the batch."""

    method: str
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW for ViTs and small data, SGD for long runs")
    lr: float = Field(1e-3, gt=0, description="peak learning rate for a batch of 256; scaled by batch_size / 256")
    min_lr: float = Field(1e-6, ge=0, description="where the cosine ends")
    warmup: float = Field(0.1, ge=0, le=0.5, description="share of the run in which the learning rate rises from 0")
    weight_decay: float = Field(0.04, ge=0, description="at the start; none on biases and norms")
    weight_decay_end: float = Field(0.04, ge=0, description="at the end, on a cosine")
    clip_grad: float | None = Field(3.0, gt=0, description="global gradient norm; null: no clipping")


class DinoSettings(MethodSettings):
    """DINO (Caron et al. 2021). Defaults are for cohorts under 20,000 scans; ImageNet's are in the comments."""

    method: Literal["dino"] = "dino"
    weight_decay_end: float = Field(0.4, ge=0, description="at the end, on a cosine")
    prototypes: int = Field(1024, ge=2, description="K, the head's outputs (65536 on ImageNet; 4096 for 78k scans)")
    hidden_dim: int = Field(512, ge=8, description="width of the head's two hidden layers (2048 in the paper)")
    bottleneck_dim: int = Field(128, ge=8, description="width before the prototypes (256 in the paper)")
    head_norm: bool = Field(True, description="batch norm in the head (helps ResNets, the paper has none for ViTs)")
    student_temp: float = Field(0.1, gt=0)
    teacher_temp: float = Field(0.02, gt=0, description="after warm-up (0.04 to 0.07 on ImageNet)")
    teacher_temp_start: float = Field(0.02, gt=0, description="at the first step")
    teacher_temp_warmup: float = Field(0.3, ge=0, le=1, description="share of the run in which it moves")
    momentum: float = Field(0.99, ge=0, le=1, description="teacher's EMA at the start, cosine to 1 (0.996 on ImageNet)")
    centering: Literal["mean", "sinkhorn"] = Field(
        "mean", description="mean: the paper's centre; sinkhorn: SwAV's, which settles in fewer steps"
    )
    center_momentum: float = Field(0.9, ge=0, lt=1, description="of the mean")
    freeze_last_layer: float = Field(0.05, ge=0, le=1, description="share of the run in which prototypes are fixed")


class SimclrSettings(MethodSettings):
    """SimCLR (Chen et al. 2020), NT-Xent loss."""

    method: Literal["simclr"] = "simclr"
    temperature: float = Field(0.1, gt=0)
    hidden_dim: int = Field(512, ge=8)
    out_dim: int = Field(128, ge=2)


class SupconSettings(MethodSettings):
    """Supervised contrastive learning (Khosla et al. 2020) on clinical values (Kokilepersaud et al. 2023)."""

    method: Literal["supcon"] = "supcon"
    positives: list[Literal["bcva", "cst", "eye", "patient"]] = Field(
        ["cst"], min_length=1, description="scans with an equal value are positives; several: their losses are summed"
    )
    cst_bin: float = Field(25.0, gt=0, description="µm; central subfield thickness is binned to this width")
    bcva_bin: float = Field(5.0, gt=0, description="letters; visual acuity is binned to this width")
    temperature: float = Field(0.07, gt=0)
    hidden_dim: int = Field(512, ge=8)
    out_dim: int = Field(128, ge=2)


METHODS: dict[str, type[MethodSettings]] = {
    "dino": DinoSettings,
    "simclr": SimclrSettings,
    "supcon": SupconSettings,
}
