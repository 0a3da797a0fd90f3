"""Rounds of several contenders by turns, so that whatever else the machine does meets all of them alike."""

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
    """What is timed, and what stands before and after it untimed."""

    work: Work
    begin: Work = lambda: None
    end: Work = lambda: None

    def seconds(self) -> float:
        """Wall seconds of one round."""
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
    """Wall seconds of one call."""
    finish()
    begin = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - begin


def peak_memory() -> int:
    """Peak resident bytes of this process so far: its own, which getrusage mixes with those of who started it."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def by_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round; the order turns. Who needs to warm up has done so."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            seconds[name].append(contenders[name].seconds())
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds of how many times as long `slow` took as `fast` in the same round."""
    return median(a / b for a, b in zip(slow, fast, strict=True))
