"""Images a second of the three loops, by part of a step, beside the machine's ceilings."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    """One loop on one task.

    Attributes:
        rate: images a second, median over the rounds.
        times: how many times as fast octdino's first row is, median of the rounds' ratios.
        shares: of the time, by part; what is left is Python and the reading of losses.
        utilisation: share of the fastest matrix product at this precision, for octdino's arithmetic.
        bound: seconds of octdino's augmentation beside what moving its bytes once takes; None of the others.
        memory: peak bytes, on the GPU or of the process.
    """

    task: Task
    loop: str
    precision: str
    rate: float
    times: float
    shares: dict[str, float]
    utilisation: float
    bound: float | None
    memory: int


@dataclass(frozen=True)
class Report:
    """What a loop says of itself at the end: seconds by part, peak bytes, operations and view bytes of an image."""

    parts: dict[str, float]
    memory: int
    operations: float | None
    moved: int | None


class Elsewhere:
    """A loop in a process of its own, which works only when told to: it shares no allocator with the others."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, args), daemon=False)
        self._process.start()
        other.close()
        self._pipe.recv()  # it is built

    def seconds(self, steps: int) -> float:
        """Of so many steps."""
        self._pipe.send(steps)
        seconds: float = self._pipe.recv()
        return seconds

    def report(self) -> Report:
        """Of the steps since the last report."""
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
    while (told := pipe.recv()) is not None:
        if told == "report":
            pipe.send(_report(loop))
            continue
        loop.begin()
        pipe.send(seconds_of(lambda steps=told: loop.steps(steps)))  # type: ignore[misc]
        loop.end()


def _report(loop: Any) -> Report:
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
    run = getattr(loop, "run", None)
    if run is None:
        return Report(loop.clock.read(), memory, None, None)
    moved = view_bytes(tuple(run.data.images.shape[1:]), run.views)
    return Report(loop.clock.read(), memory, run.use.operations, moved)


def precisions(device: torch.device) -> list[str]:
    """Those that octdino is timed at: bfloat16 only where the hardware is fast at it; the default comes first."""
    return ["bfloat16", "float32"] if autocast(device, "auto")._enabled else ["float32"]


def time_task(task: Task, scans: Scans, rounds: int, steps: int, workers: int, compiled: bool) -> Iterator[Row]:
    """Time all loops on one task, in turns."""
    device, store = pick_device(), scans.cohort / "scans.h5"
    attributes = read_header(store).attributes
    statistics = list(attributes["mean"]), list(attributes["std"])
    fast = precisions(device)
    made: dict[str, tuple[Any, ...]] = {f"octdino, {each}": (Octdino.on, task, store, each) for each in fast}
    if compiled:
        made[f"octdino, {fast[0]}, compiled"] = (Octdino.on, task, store, fast[0], True)
    made |= {name: (kind, task, scans.pictures, workers, statistics) for name, kind in PEERS.items()}
    loops: dict[str, Elsewhere] = {}
    try:
        for name, (make, *args) in made.items():
            loops[name] = Elsewhere(make, *args)
        for loop in loops.values():
            loop.seconds(steps)  # warms up
            loop.report()
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        ceilings = dict.fromkeys(fast, 0.0)
        for index in range(rounds):
            names = list(loops)
            for name in names[index % len(names) :] + names[: index % len(names)]:
                seconds[name].append(loops[name].seconds(steps))
            for each in fast:  # in turns, too: a busy machine's ceiling is as low as its rates
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
            times=ratio(taken, seconds[first]),
            shares={part: report.parts.get(part, 0.0) / sum(taken) for part in PARTS},
            utilisation=rate * (reports[first].operations or 0.0) / ceilings[precision],
            bound=bound,
            memory=report.memory,
        )


def default_workers() -> int:
    """Processes of the peers' DataLoaders: one a core beside a GPU; none where the cores are what trains."""
    return (os.cpu_count() or 1) if torch.cuda.is_available() else 0
