"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from octdino.pretrain.eye_visits import eye_visit_columns, same_eye
from octdino.pretrain.methods.contrastive import Contrastive, cosines, same_group, without
from octdino.pretrain.methods.method import Batch, Features


def nt_xent(embeddings: Tensor, groups: Tensor, temperature: float, related: Tensor | None = None) -> Tensor:
    """NT-Xent (eq. 1): each view is classified as the scan's other view among all views of the batch.

    Args:
        embeddings: [2 * B, D]; rows b and B + b are two views of scan b; any length (normalized here).
        groups: int64 [B]; scans of one group are not negatives of each other.
        temperature: > 0.
        related: bool [B, B]; more scans that are not negatives of each other.
    """
    count = len(embeddings)
    other = torch.arange(count, device=embeddings.device).roll(count // 2)
    excluded = same_group(groups)  # a view itself included
    if related is not None:
        excluded |= related.repeat(2, 2)
    excluded[torch.arange(count, device=embeddings.device), other] = False
    return F.cross_entropy(without(cosines(embeddings) / temperature, excluded), other)


class Simclr(Contrastive):
    """Two views of a scan are positives; views of scans of other groups are negatives.

    With `positives: eye` the second view is of another visit of the eye, and scans of an eye, at visits within the
    limits, are no negatives. Targets are then the group and three columns for the eye.
    """

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        groups = super().targets(manifest)
        if not self.settings.positives:
            return groups
        return torch.cat([groups, eye_visit_columns(manifest, self.settings)], dim=1)

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        related = same_eye(batch.targets[:, 1:], s) if s.positives else None
        return nt_xent(self.embed(encoded), batch.targets[:, 0], s.temperature, related), {}
