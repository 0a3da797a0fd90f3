"""Progress of long loops: a bar on a terminal, plain lines with rate and time left in a log file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS = 10.0  # between two lines in a log

log = logging.getLogger("octdino.progress")


def progress(iterable: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    """Pass the items of `iterable` on and show how far it is.

    Args:
        iterable: of `total` items.
        total: how many items will come.
        what: what is being done: "reading scans".
        unit: what one item is, in the singular: "scan".
    """
    if sys.stderr.isatty():
        yield from tqdm(iterable, what, total, unit=f" {unit}s", dynamic_ncols=True)
        return
    begin = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        if (now := time.monotonic()) - last >= SECONDS:
            last, rate = now, done / (now - begin)
            left = max(total - done, 0) / rate
            log.info("%s: %d of %d %ss, %.3g/s, %s left", what, done, total, unit, rate, duration(left))
    seconds = max(time.monotonic() - begin, 1e-9)
    log.info("%s: %d %ss in %s, %.3g/s", what, done, unit, duration(seconds), done / seconds)


def duration(seconds: float) -> str:
    """Seconds as people say them: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
