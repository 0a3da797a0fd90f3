"""BYOL: bootstrap your own latent (Grill et al. 2020, https://arxiv.org/abs/2006.07733)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.config.methods import ByolSettings
from octdino.models.heads import projection_head
from octdino.pretrain.methods.method import Batch, Features, encode_views
from octdino.pretrain.methods.teacher import Distillation


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """BYOL's loss: squared distance of unit vectors (eq. 2), 2 - 2 cos, mean over rows; 0 if equal, 4 if opposite.

    Args:
        prediction: [N, D], any length (normalized here).
        target: [N, D], of the teacher's other view; any length.
    """
    p, t = (F.normalize(x.float(), dim=-1) for x in (prediction, target))
    return 2 - 2 * (p * t).sum(-1).mean()


class Byol(Distillation):
    """The student predicts the teacher's projection of the scan's other view; there are no negatives.

    Heads see both views in one batch, so their batch norms, which the method needs, work even with one scan.
    """

    def __init__(self, settings: ByolSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        hidden, out = self.settings.hidden_dim, self.settings.out_dim
        student = {
            "backbone": make_backbone(),
            "projector": projection_head([dim, hidden, out], norm=True),
            "predictor": projection_head([out, hidden, out], norm=True),
        }
        self.pair(student, averaged=("backbone", "projector"))

    @property
    def exported(self) -> nn.Module:
        """The student's backbone, as in the paper (sec. 3.1: only f_theta is kept)."""
        return self.student["backbone"]

    def encode_teacher(self, batch: Batch) -> Features:
        return {"views": encode_views(self.teacher["backbone"], batch.views[0])}

    def encode(self, batch: Batch) -> Features:
        return {"views": encode_views(self.student["backbone"], batch.views[0])}

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            target = self.teacher["projector"](teacher_features["views"].flatten(0, 1))  # [2 * B, out_dim]
        prediction = self.student["predictor"](self.student["projector"](encoded["views"].flatten(0, 1)))
        other = target.roll(len(target) // 2, 0)
        return 2 * byol_loss(prediction, other), {}  # the sum over both directions, as in the paper
