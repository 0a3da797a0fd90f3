"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.config.methods import SimclrSettings
from octdino.models import projection_head
from octdino.pretrain.methods.base import Method


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


class Simclr(Method):
    """One network, two views, NT-Xent."""

    def __init__(self, settings: SimclrSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        head = projection_head([dim, settings.hidden_dim, settings.out_dim], norm=True)
        self.network = nn.ModuleDict({"backbone": make_backbone(), "head": head})

    @property
    def exported(self) -> nn.Module:
        return self.network["backbone"]

    @property
    def trained(self) -> nn.Module:
        return self.network

    def loss(self, views: list[Tensor], targets: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        embeddings = self.network["head"](self.network["backbone"](views[0]))
        return nt_xent(embeddings, self.settings.temperature), {}
