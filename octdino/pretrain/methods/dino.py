"""DINO: self-distillation with no labels (Caron et al. 2021, https://arxiv.org/abs/2104.14294)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from octdino.augment import View
from octdino.config import AugmentSettings
from octdino.config.methods import PrototypeSettings
from octdino.models.heads import PrototypeHead
from octdino.pretrain.methods.method import Batch, Features, encode_views
from octdino.pretrain.methods.teacher import Distillation

GLOBAL_VIEWS = 2


def dino_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """DINO's loss: cross-entropy between every teacher view and every other student view (eq. 1 and 3).

    The double loop over pairs of views is expanded: the sum over all pairs minus that of a view with itself.

    Args:
        student: log-probabilities float32 [V, B, K], the teacher's views first.
        teacher: probabilities float32 [G, B, K], G <= V.

    Returns:
        Mean over the G * (V - 1) pairs and the batch.
    """
    same = (teacher * student[: len(teacher)]).sum()
    total = (teacher.sum(0) * student.sum(0)).sum()
    return (same - total) / (len(teacher) * (len(student) - 1) * student.shape[1])


def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Sinkhorn-Knopp: probabilities that use every prototype equally over the batch (SwAV, Caron et al. 2020, 3.1).

    Args:
        logits: float32 [N, K]; iterated as logarithms, because exponentials overflow or leave rows of zeros.
        temperature: > 0.

    Returns:
        [N, K]; rows sum to 1 exactly, columns to N / K approximately.
    """
    log_q = logits / temperature
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()


class Targets(nn.Module):
    """Teacher logits to target probabilities, centered against collapse, with measures of collapse per epoch.

    Args:
        prototypes: K.
        centering: mean (eq. 4), sinkhorn, or none.
        momentum: of the moving average of the center.
    """

    center: Tensor
    usage: Tensor
    mean_probability: Tensor

    def __init__(self, prototypes: int, centering: str, momentum: float) -> None:
        super().__init__()
        self.centering, self.momentum = centering, momentum
        for name in ("center", "usage", "mean_probability"):
            self.register_buffer(name, torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Return probabilities [N, K] of logits [N, K], then update the center."""
        if self.centering == "sinkhorn":
            probability = sinkhorn(logits, temperature)
        else:
            probability = torch.softmax((logits - self.center) / temperature, dim=-1)
        if self.centering == "mean":
            self.center.lerp_(logits.mean(0), 1 - self.momentum)
        self.usage.index_fill_(0, probability.argmax(-1), 1)
        self.mean_probability += probability.sum(0)
        return probability

    def end_epoch(self) -> dict[str, float]:
        """Return the entropy of the mean target, its limit ln K, and the share of prototypes that were any argmax."""
        mean = self.mean_probability / self.mean_probability.sum().clamp(min=1)
        scalars = {
            "mean_entropy": -torch.special.xlogy(mean, mean).sum().item(),
            "prototypes_used": self.usage.mean().item(),
            "ln_k": math.log(len(mean)),
        }
        self.usage.zero_()
        self.mean_probability.zero_()
        return scalars


def entropy_of(probability: Tensor) -> Tensor:
    """Return the mean entropy of the rows of [..., K], in nats."""
    entropy: Tensor = -torch.special.xlogy(probability, probability).sum(-1).mean()
    return entropy


def prototype_head(settings: PrototypeSettings, dim: int) -> PrototypeHead:
    """Return a new prototype head for features of `dim` dimensions; no batch norm where the settings are None."""
    s: Any = settings  # resolved: sizes are not None
    return PrototypeHead(
        dim, s.hidden_dim, s.bottleneck_dim, s.prototypes,
        norm=bool(s.head_norm), bottleneck_norm=bool(s.bottleneck_norm),
    )  # fmt: skip


class Dino(Distillation):
    """The student sees all views, the teacher the large ones; the teacher is the student's moving average."""

    def __init__(self, settings: PrototypeSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        s = self.settings
        self.pair({"backbone": make_backbone(), "head": prototype_head(s, dim)}, averaged=("backbone", "head"))
        self.center = Targets(s.prototypes, s.centering, s.center_momentum)

    def views(self, augment: AugmentSettings) -> list[View]:
        large = View(GLOBAL_VIEWS, augment.global_size, augment.global_scale)
        small = View(augment.local_views, augment.local_size, augment.local_scale)
        return [large, small] if augment.local_views else [large]

    def encode_teacher(self, batch: Batch) -> Features:
        return {"views": encode_views(self.teacher["backbone"], batch.views[0])}

    def encode(self, batch: Batch) -> Features:
        # One forward per size, not per view.
        return {"views": torch.cat([encode_views(self.student["backbone"], view) for view in batch.views])}

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.view_loss(encoded["views"], teacher_features["views"], batch.progress)

    def view_loss(self, student: Tensor, teacher: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of features [V, B, D] and [G, B, D], and the two measures of collapse."""
        with torch.no_grad():
            logits = self.teacher["head"](teacher.flatten(0, 1))  # [G*B, K]
            probability: Tensor = self.center(logits, self.teacher_temp(progress))
        logits = self.student["head"](student.flatten(0, 1))
        log_student = torch.log_softmax(logits / self.settings.student_temp, dim=-1)
        loss = dino_loss(*(x.view(-1, student.shape[1], x.shape[-1]) for x in (log_student, probability)))
        entropy = entropy_of(probability)
        return loss, {"teacher_entropy": entropy, "kl": loss.detach() - entropy}

    def teacher_temp(self, progress: float) -> float:
        """Return the teacher temperature: linear from start to end over the warm-up, then constant."""
        s = self.settings
        done: float = min(progress / s.teacher_temp_warmup, 1.0) if s.teacher_temp_warmup else 1.0
        temperature: float = s.teacher_temp_start + (s.teacher_temp - s.teacher_temp_start) * done
        return temperature

    def before_step(self, progress: float) -> None:
        if progress < self.settings.freeze_last_layer:
            for module in self.student.modules():
                if isinstance(module, PrototypeHead):
                    module.prototypes.weight.grad = None

    def end_epoch(self) -> dict[str, float]:
        scalars: dict[str, float] = self.center.end_epoch()
        return scalars
