"""Benchmark of pretraining: images per second of three loops, time per part of a step, MFU."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch

from benchmarks.ceiling import bandwidth, matmul_rate, view_bytes
from benchmarks.loops import Lightly, Naive, Octdino, Task
from benchmarks.scans import Scans
from benchmarks.timing import peak_memory, ratio, seconds_of
from octdino.data.store import read_header
from octdino.training.precision import autocast, pick_device

PARTS = ("data", "augmentation", "forward", "backward", "optimizer", "average")


@dataclass(frozen=True)
class Row:
    """Result of one loop on one task.

    Attributes:
        rate: images per second, median over the rounds.
        speedup: of octdino's first row against this loop, median of the rounds' ratios.
        shares: of the time, per part; the rest is Python and reading losses.
        mfu: model FLOPs utilization at this precision, with the FLOPs that octdino needs.
        bound: time of octdino's augmentation over that of moving its bytes once; None for the others.
        memory: peak bytes, on the GPU or of the process.
    """

    task: Task
    loop: str
    precision: str
    rate: float
    speedup: float
    shares: dict[str, float]
    mfu: float
    bound: float | None
    memory: int


@dataclass(frozen=True)
class Report:
    """Measurements of a loop: seconds per part, peak bytes, FLOPs and view bytes per image."""

    parts: dict[str, float]
    memory: int
    flops: float | None
    moved: int | None


class LoopProcess:
    """A loop in a process of its own, idle between rounds, so that loops share no memory allocator."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, args), daemon=False)
        self._process.start()
        other.close()
        self._pipe.recv()  # built

    def seconds(self, steps: int) -> float:
        """Return the seconds of `steps` steps."""
        self._pipe.send(steps)
        seconds: float = self._pipe.recv()
        return seconds

    def report(self) -> Report:
        """Return the measurements since the last report."""
        self._pipe.send("report")
        report: Report = self._pipe.recv()
        return report

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _serve(pipe: Connection, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    loop = make(*args)
    pipe.send("ready")
    while (command := pipe.recv()) is not None:
        if command == "report":
            pipe.send(_report(loop))
            continue
        loop.begin()
        pipe.send(seconds_of(partial(loop.steps, command)))
        loop.end()


def _report(loop: Any) -> Report:
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
    trainer = getattr(loop, "trainer", None)
    if trainer is None:
        return Report(loop.timer.read(), memory, None, None)
    moved = view_bytes(tuple(trainer.data.images.shape[1:]), trainer.batches.views)
    return Report(loop.timer.read(), memory, trainer.throughput.mfu.flops_per_image, moved)


def precisions(device: torch.device) -> list[str]:
    """Return the precisions to time octdino at, the default first; bfloat16 only where the hardware is fast at it."""
    return ["bfloat16", "float32"] if autocast(device, "auto")._enabled else ["float32"]


def time_task(task: Task, scans: Scans, rounds: int, steps: int, workers: int, compiled: bool) -> Iterator[Row]:
    """Time all loops on one task, in interleaved rounds."""
    device, store = pick_device(), scans.cohort / "scans.h5"
    attributes = read_header(store).attributes
    statistics = list(attributes["mean"]), list(attributes["std"])
    fast = precisions(device)
    made: dict[str, tuple[Any, ...]] = {f"octdino, {each}": (Octdino.on, task, store, each) for each in fast}
    if compiled:
        made[f"octdino, {fast[0]}, compiled"] = (Octdino.on, task, store, fast[0], True)
    made |= {name: (kind, task, scans.png, workers, statistics) for name, kind in PEERS.items()}
    loops: dict[str, LoopProcess] = {}
    try:
        for name, (make, *args) in made.items():
            loops[name] = LoopProcess(make, *args)
        for loop in loops.values():
            loop.seconds(steps)  # warm-up
            loop.report()
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        ceilings = dict.fromkeys(fast, 0.0)
        for index in range(rounds):
            names = list(loops)
            for name in names[index % len(names) :] + names[: index % len(names)]:
                seconds[name].append(loops[name].seconds(steps))
            for each in fast:  # interleaved too: on a busy machine the ceiling is lower as well
                ceilings[each] = max(ceilings[each], matmul_rate(device, getattr(torch, each)))
        reports = {name: loop.report() for name, loop in loops.items()}
    finally:
        for loop in loops.values():
            loop.close()
    yield from _rows(task, task.batch * steps, seconds, reports, ceilings, bandwidth(device))


PEERS = {"lightly": Lightly, "naive": Naive}


def _rows(
    task: Task,
    images: int,
    seconds: dict[str, list[float]],
    reports: dict[str, Report],
    ceilings: dict[str, float],
    moving: float,
) -> Iterator[Row]:
    first = next(iter(seconds))
    for name, taken in seconds.items():
        report, rate = reports[name], images / median(taken)
        precision = "bfloat16" if "bfloat16" in name else "float32"
        bound = None
        if report.moved is not None:
            bound = report.parts["augmentation"] / (images * len(taken)) / (report.moved / moving)
        yield Row(
            task=task,
            loop=name,
            precision=precision,
            rate=rate,
            speedup=ratio(taken, seconds[first]),
            shares={part: report.parts.get(part, 0.0) / sum(taken) for part in PARTS},
            mfu=rate * (reports[first].flops or 0.0) / ceilings[precision],
            bound=bound,
            memory=report.memory,
        )


def default_workers() -> int:
    """Return the worker processes of the peers' DataLoaders: one per core with a GPU, else none."""
    return (os.cpu_count() or 1) if torch.cuda.is_available() else 0
