"""How much of the machine a run uses: its arithmetic beside the machine's own fastest matrix product."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

SECONDS = 0.2  # of measuring the ceiling


class Utilisation:
    """Share of the ceiling that a rate of images is worth; the arithmetic is counted over one step."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.ceiling = matmul_rate(device, dtype)
        self.operations: float | None = None  # an image

    @contextmanager
    def counting(self, images: int) -> Iterator[None]:
        """The block is a step of so many images: count its products and convolutions, once."""
        if self.operations is not None:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self.operations = counter.get_total_flops() / images

    def at(self, rate: float) -> float:
        """Share of the ceiling at `rate` images a second; NaN before a step was counted."""
        return rate * self.operations / self.ceiling if self.operations else float("nan")


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest large matrix product seen here, at this precision."""
    side = 4096 if device.type == "cuda" else 1024
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + SECONDS
    while best == 0.0 or time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begin))
    return best
