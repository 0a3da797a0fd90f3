"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from octdino.pretrain.methods.base import Contrastive


def nt_xent(embeddings: Tensor, temperature: float) -> Tensor:
    """NT-Xent (eq. 1): each view must find the image's other view among all views of the batch.

    Args:
        embeddings: [2 * B, D]; rows b and B + b are two views of one image; any length (normalised here).
        temperature: > 0.
    """
    z = F.normalize(embeddings.float(), dim=-1)
    count = len(z)
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # never its own negative
    other = torch.arange(count, device=z.device).roll(count // 2)
    return F.cross_entropy(similarity, other)


class Simclr(Contrastive):
    """Two views of a scan attract each other, all else repels."""

    def loss(self, views: list[Tensor], targets: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        return nt_xent(self.embed(views), self.settings.temperature), {}
