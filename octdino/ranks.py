"""What several training processes must agree on. With one process nothing is communicated."""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_sum(x: Tensor) -> Tensor:
    """`x` summed over all processes; no gradient."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x, dist.ReduceOp.SUM)
    return x


def all_logsumexp(x: Tensor, dim: int) -> Tensor:
    """logsumexp over a dimension of which every process holds a part, keeping the dimension; no gradient."""
    if world_size() == 1:
        return x.logsumexp(dim, keepdim=True)
    peak = x.amax(dim, keepdim=True)
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    return all_sum(torch.exp(x - peak).sum(dim, keepdim=True)).log() + peak
