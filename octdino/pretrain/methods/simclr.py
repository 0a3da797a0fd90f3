"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from octdino.pretrain.methods.contrastive import Contrastive, cosines, same_group, without
from octdino.pretrain.methods.method import Batch, Features


def nt_xent(embeddings: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """NT-Xent (eq. 1): each view is classified as the scan's other view among all views of the batch.

    Args:
        embeddings: [2 * B, D]; rows b and B + b are two views of scan b; any length (normalized here).
        groups: int64 [B]; scans of one group are not negatives of each other.
        temperature: > 0.
    """
    count = len(embeddings)
    other = torch.arange(count, device=embeddings.device).roll(count // 2)
    excluded = same_group(groups)  # a view itself included
    excluded[torch.arange(count, device=embeddings.device), other] = False
    return F.cross_entropy(without(cosines(embeddings) / temperature, excluded), other)


class Simclr(Contrastive):
    """Two views of a scan are positives; views of scans of other groups are negatives."""

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return nt_xent(self.embed(encoded), batch.targets[:, 0], self.settings.temperature), {}
