"""Projection heads of the pretraining methods."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def projection_head(
    dims: list[int], *, norm: bool, activation: type[nn.Module] = nn.ReLU, last_norm: bool = False
) -> nn.Sequential:
    """An MLP through `dims`: linear, batch norm (if `norm`), activation between; linear at the end.

    With `last_norm` the end is standardized over the batch, too, without learned scale (Chen et al. 2021, MoCo v3).
    """
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(dims)):
        layers.append(nn.Linear(before, after))
        if index == len(dims) - 2:
            break
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(activation())
    if last_norm:
        layers.append(nn.BatchNorm1d(dims[-1], affine=False))
    head = nn.Sequential(*layers)
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return head


class PrototypeHead(nn.Module):
    """DINO's head: MLP, L2 normalization, cosine similarity to K unit-length prototypes (Caron et al. 2021, 3.1).

    The prototypes are normalized where they are used: `weight_norm` cannot be deep-copied into a teacher.

    Args:
        norm: batch norm after the hidden layers.
        bottleneck_norm: the bottleneck is standardized over the batch. An untrained backbone maps scans of one organ to
            nearly one direction, and the teacher's targets would stay uniform for thousands of steps.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, bottleneck_dim: int, prototypes: int, *, norm: bool, bottleneck_norm: bool
    ) -> None:
        super().__init__()
        dims = [in_dim, hidden_dim, hidden_dim, bottleneck_dim]
        self.mlp = projection_head(dims, norm=norm, activation=nn.GELU, last_norm=bottleneck_norm)
        self.prototypes = nn.Linear(bottleneck_dim, prototypes, bias=False)
        nn.init.trunc_normal_(self.prototypes.weight, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """[B, in_dim] to cosine similarities float32 [B, K].

        The last product leaves autocast: bfloat16 cosines are 0.004 apart, a fifth of a temperature of 0.02.
        """
        x = self.mlp(features)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.float(), dim=-1, eps=1e-6)
            return F.linear(x, F.normalize(self.prototypes.weight.float(), dim=-1, eps=1e-6))
