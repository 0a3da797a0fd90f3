"""What the machine can do at most: matrix products a second, bytes a second."""

import torch

from benchmarks.timing import seconds_of
from octdino.augment import View
from octdino.training.throughput import matmul_rate

__all__ = ["bandwidth", "matmul_rate", "view_bytes"]

BYTES = 1 << 28  # of each of the two arrays: far more than a cache holds


def bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of copying one large array to another."""
    source, target = (torch.ones(BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * BYTES / min(seconds_of(lambda: target.copy_(source)) for _ in range(5))


def view_bytes(shape: tuple[int, ...], views: list[View]) -> int:
    """Bytes that making one image's views moves at least: its uint8 px in, float32 px of every view out."""
    channels, height, width = shape
    return channels * (height * width + 4 * sum(view.count * view.size**2 for view in views))
