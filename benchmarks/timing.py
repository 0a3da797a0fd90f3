"""Timing of several contenders in interleaved rounds, so that other load on the machine affects all alike."""

import gc
import re
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """The timed work, with untimed setup and teardown."""

    work: Work
    begin: Work = lambda: None
    end: Work = lambda: None

    def seconds(self) -> float:
        """Return the wall seconds of one round."""
        self.begin()
        try:
            return seconds_of(self.work)
        finally:
            self.end()


def finish() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Work) -> float:
    """Return the wall seconds of one call."""
    finish()
    begin = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - begin


def peak_memory() -> int:
    """Return this process's peak resident bytes so far; getrusage would include those of its parent."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def interleaved(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Return the seconds per contender and round, in rotating order; contenders must be warmed up already."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            seconds[name].append(contenders[name].seconds())
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median over rounds of the time of `slow` divided by that of `fast` in the same round."""
    return median(a / b for a, b in zip(slow, fast, strict=True))
