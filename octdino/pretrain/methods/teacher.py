"""Base class of self-distillation: a student, and a teacher that is its exponential moving average (EMA)."""

import copy

import torch
from torch import Tensor, nn

from octdino.pretrain.methods.method import Method
from octdino.training.optimizers import ema_update
from octdino.training.schedules import cosine


class Distillation(Method):
    """`student` is trained; `teacher` is its moving average. A subclass calls `pair` once in its constructor.

    Batch norm in the teacher: it normalizes by its own batch, as in the reference code of DINO, BYOL and MoCo; its
    running statistics come from its own forward passes and are never averaged from the student's. (Averaged buffers
    would lag behind averaged weights: the statistics of an average of networks are not the average of theirs.)

    Only the student has drop path and dropout: the teacher's targets come from the whole network.
    """

    student: nn.ModuleDict
    teacher: nn.ModuleDict

    def pair(self, student: dict[str, nn.Module], averaged: tuple[str, ...]) -> None:
        """Set the student's networks by name, and the teacher to copies of those named in `averaged`."""
        self.student = nn.ModuleDict(student)
        self.teacher = nn.ModuleDict({name: copy.deepcopy(self.student[name]) for name in averaged})
        self.teacher.requires_grad_(False)
        for module in self.teacher.modules():
            for name in ("drop_prob", "drop_rate", "prob"):  # timm's: paths and blocks, features, patches
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0

    @property
    def exported(self) -> nn.Module:
        return self.teacher["backbone"]

    @property
    def trained(self) -> nn.Module:
        return self.student

    @torch.no_grad()
    def after_step(self, progress: float, taken: Tensor) -> None:
        for name, network in self.teacher.items():
            ema_update(network, self.student[name], self.momentum(progress), taken)

    def momentum(self, progress: float) -> float:
        """Return the momentum of the moving average: a cosine schedule between the settings' two values."""
        return cosine(progress, self.settings.momentum, self.settings.momentum_end)
