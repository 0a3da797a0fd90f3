"""Where a run's time goes, and how much of the machine it uses: its arithmetic beside the fastest matrix product."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

SECONDS = 0.2  # of measuring the ceiling


class Stopwatch:
    """Seconds by part of a step. On a GPU events mark the parts, so that only who reads them waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The block is a piece of the part `name`."""
        if self._gpu:
            begin, end = _event(), _event()
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
        else:
            start = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Seconds of each part since it was read last; waits for the device."""
        if self._events:
            torch.cuda.synchronize()
        for name, begin, end in self._events:
            self._seconds[name] += begin.elapsed_time(end) / 1000
        seconds = dict(self._seconds)
        self._seconds.clear()
        self._events.clear()
        return seconds


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


class Utilisation:
    """Share of the ceiling that a rate of images is worth, from the arithmetic of one image."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.ceiling = matmul_rate(device, dtype)
        self.operations: float | None = None  # an image

    def count(self, work: Callable[[int], object], images: int) -> None:
        """Count the products and convolutions that `work` does for so many images."""
        with FlopCounterMode(display=False) as counter:
            work(images)
        self.operations = counter.get_total_flops() / images

    def at(self, rate: float) -> float:
        """Share of the ceiling at `rate` images a second; NaN before anything was counted."""
        return rate * self.operations / self.ceiling if self.operations else float("nan")


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest large matrix product seen here, at this precision."""
    side = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + SECONDS
    while best == 0.0 or time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begin))
    return best
