"""Base class of contrastive methods: one network on two views, and the groups of scans that are not negatives."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.models.heads import projection_head
from octdino.pretrain.methods.method import OneNetwork, scan_groups


class Contrastive(OneNetwork):
    """One backbone and one projection head on two large views; a subclass defines the loss.

    Settings need `hidden_dim`, `out_dim` and `negatives`. Column 0 of the targets is the scans' group: only scans of
    different groups are negatives of each other.
    """

    def __init__(self, settings: Any, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        head = projection_head([dim, settings.hidden_dim, settings.out_dim], norm=True)
        self.network = nn.ModuleDict({"backbone": make_backbone(), "head": head})

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        return scan_groups(manifest, self.settings.negatives)[:, None]


def cosines(embeddings: Tensor) -> Tensor:
    """Return the cosine similarity of all pairs of rows of [N, D], float32 [N, N], under autocast as well."""
    with torch.autocast(embeddings.device.type, enabled=False):
        z = F.normalize(embeddings.float(), dim=-1)
        return z @ z.T


def same_group(groups: Tensor) -> Tensor:
    """Return which pairs of two views per scan are of one group, so never negatives: [B] to bool [2 * B, 2 * B]."""
    groups = groups.repeat(2)
    return groups[:, None] == groups[None, :]


def without(similarity: Tensor, excluded: Tensor) -> Tensor:
    """Return the similarities with excluded pairs at minus infinity, so that a softmax ignores them."""
    return similarity.masked_fill(excluded, -torch.inf)
