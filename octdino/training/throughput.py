"""Throughput of training: time per part of a step, images per second, model FLOPs utilization (MFU)."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from octdino.training.distributed import world_size

MATMUL_SECONDS = 0.2  # of measuring the fastest matrix product


class StepTimer:
    """Seconds per part of a step. On a GPU, events mark the parts, so that only `read` waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to the part `name`."""
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
        """Return the seconds of each part since the last call; waits for the device."""
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


class ModelFlopsUtilization:
    """MFU: FLOPs of the model per second as a share of the device's fastest matrix product.

    Attributes:
        ceiling: FLOPs per second of that product.
        flops_per_image: of one training step; None before `count`.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.ceiling = matmul_rate(device, dtype)
        self.flops_per_image: float | None = None

    def count(self, work: Callable[[int], object], images: int) -> None:
        """Count the FLOPs of matrix products and convolutions while `work(images)` runs."""
        with FlopCounterMode(display=False) as counter:
            work(images)
        self.flops_per_image = counter.get_total_flops() / images

    def at(self, rate: float) -> float:
        """Return the utilization at `rate` images per second; NaN before `count`."""
        return rate * self.flops_per_image / self.ceiling if self.flops_per_image else float("nan")


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOPs per second of a large matrix product of this precision; the fastest of several."""
    side = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + MATMUL_SECONDS
    while best == 0.0 or time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begin))
    return best


class Throughput:
    """The speed of training since `restart`, as columns of history.csv.

    Attributes:
        timer: times the parts of each step.
        mfu: of one process, on its own device.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.timer = StepTimer(device)
        self.mfu = ModelFlopsUtilization(device, dtype)
        self.restart()

    def restart(self) -> None:
        """Begin a new measurement."""
        self.timer.read()
        self._images, self._began = 0, time.monotonic()

    def add(self, images: int) -> None:
        """Count the images of a step, those of all processes."""
        self._images += images

    def columns(self) -> dict[str, float]:
        """Return images per second, MFU, and the shares of time of data loading and augmentation.

        Waits for the device; what follows until `restart` is not measured.
        """
        parts = self.timer.read()
        seconds = time.monotonic() - self._began
        rate = self._images / seconds
        return {
            "images_per_second": rate,
            "utilisation": self.mfu.at(rate / world_size()),
            "data_wait": parts.get("data", 0.0) / seconds,
            "augmentation": parts.get("augmentation", 0.0) / seconds,
        }
