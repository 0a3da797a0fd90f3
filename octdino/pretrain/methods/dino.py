"""DINO: self-distillation with no labels (Caron et al. 2021, https://arxiv.org/abs/2104.14294)."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from octdino.augment import View
from octdino.config import AugmentSettings
from octdino.config.methods import DinoSettings
from octdino.models import PrototypeHead
from octdino.pretrain.methods.base import Method
from octdino.training import cosine, ema_update

GLOBAL_VIEWS = 2


def dino_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy between every teacher view and every other student view (eq. 1 and 3).

    The double loop over pairs of views is expanded: the sum over all pairs less the pairs of a view with itself.

    Args:
        student: log-probabilities float32 [V, B, K], the teacher's views first.
        teacher: probabilities float32 [G, B, K], G <= V.

    Returns:
        Mean over the G * (V - 1) pairs and the batch.
    """
    same = (teacher * student[: len(teacher)]).sum()
    every = (teacher.sum(0) * student.sum(0)).sum()
    return (same - every) / (len(teacher) * (len(student) - 1) * student.shape[1])


def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Probabilities that use every prototype equally over the batch (Caron et al. 2020, SwAV, sec. 3.1).

    Args:
        logits: float32 [N, K]; the iterations run on logarithms: exponentials overflow, or leave rows of zeros.
        temperature: > 0.

    Returns:
        [N, K]; rows sum to 1 exactly, columns to N / K as nearly as the iterations bring them.
    """
    log_q = logits / temperature
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()


class Dino(Method):
    """Student sees all views, teacher the large ones; the teacher is the student's moving average.

    Batch norm: the teacher normalises by its own batch, as in the reference code; its running statistics come from
    its own forward passes (never averaged from the student's) and are what the exported backbone uses.
    """

    center: Tensor
    usage: Tensor
    mean_probability: Tensor

    def __init__(self, settings: DinoSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        s = settings
        head = PrototypeHead(dim, s.hidden_dim, s.bottleneck_dim, s.prototypes, norm=s.head_norm)
        self.student = nn.ModuleDict({"backbone": make_backbone(), "head": head})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("center", torch.zeros(s.prototypes))
        self.register_buffer("usage", torch.zeros(s.prototypes))
        self.register_buffer("mean_probability", torch.zeros(s.prototypes))

    @property
    def exported(self) -> nn.Module:
        return self.teacher["backbone"]

    @property
    def trained(self) -> nn.Module:
        return self.student

    def views(self, augment: AugmentSettings) -> list[View]:
        large = View(GLOBAL_VIEWS, augment.global_size, augment.global_scale)
        small = View(augment.local_views, augment.local_size, augment.local_scale)
        return [large, small] if augment.local_views else [large]

    def loss(self, views: list[Tensor], targets: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            logits = self.teacher["head"](self.teacher["backbone"](views[0]))  # [G*B, K]
            probability = self._targets(logits, self.teacher_temp(progress))
        # One forward a size (not one a view), one head for all views.
        features = torch.cat([self.student["backbone"](view) for view in views])
        log_student = torch.log_softmax(self.student["head"](features) / self.settings.student_temp, dim=-1)
        batch = len(views[0]) // GLOBAL_VIEWS
        loss = dino_loss(*(x.view(-1, batch, x.shape[-1]) for x in (log_student, probability)))
        with torch.no_grad():
            entropy = -torch.special.xlogy(probability, probability).sum(-1).mean()
            self._accumulate(logits, probability)
        return loss, {"teacher_entropy": entropy, "kl": loss.detach() - entropy}

    def _targets(self, logits: Tensor, temperature: float) -> Tensor:
        if self.settings.centering == "sinkhorn":
            return sinkhorn(logits, temperature)
        return torch.softmax((logits - self.center) / temperature, dim=-1)

    def _accumulate(self, logits: Tensor, probability: Tensor) -> None:
        self.center.lerp_(logits.mean(0), 1 - self.settings.center_momentum)  # eq. 4
        self.usage += torch.bincount(probability.argmax(-1), minlength=len(self.usage))
        self.mean_probability += probability.sum(0)

    def teacher_temp(self, progress: float) -> float:
        """Linear from start to end over the warm-up, then constant."""
        s = self.settings
        done: float = min(progress / s.teacher_temp_warmup, 1.0) if s.teacher_temp_warmup else 1.0
        temperature: float = s.teacher_temp_start + (s.teacher_temp - s.teacher_temp_start) * done
        return temperature

    def before_step(self, progress: float) -> None:
        if progress < self.settings.freeze_last_layer:
            for parameter in self.student["head"].get_submodule("prototypes").parameters():
                parameter.grad = None

    def after_step(self, progress: float) -> None:
        ema_update(self.teacher, self.student, cosine(progress, self.settings.momentum, 1.0))

    def end_epoch(self) -> dict[str, float]:
        mean = self.mean_probability / self.mean_probability.sum().clamp(min=1)
        scalars = {
            "mean_entropy": -torch.special.xlogy(mean, mean).sum().item(),
            "prototypes_used": (self.usage > 0).float().mean().item(),
            "ln_k": math.log(len(mean)),
        }
        self.usage.zero_()
        self.mean_probability.zero_()
        return scalars
