"""Upper limits of the machine: FLOPs per second of matrix products, memory bandwidth."""

import torch

from benchmarks.timing import seconds_of
from octdino.augment import View
from octdino.training.throughput import matmul_rate

__all__ = ["bandwidth", "matmul_rate", "view_bytes"]

BYTES = 1 << 28  # of each of the two arrays: far larger than any cache


def bandwidth(device: torch.device) -> float:
    """Return the memory bandwidth: bytes per second, read and written, of copying one large array to another."""
    source, target = (torch.ones(BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * BYTES / min(seconds_of(lambda: target.copy_(source)) for _ in range(5))


def view_bytes(shape: tuple[int, ...], views: list[View]) -> int:
    """Return the minimum bytes moved per image by augmentation: uint8 image read, float32 views written."""
    channels, height, width = shape
    return channels * (height * width + 4 * sum(view.count * view.size**2 for view in views))
