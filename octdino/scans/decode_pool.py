"""Parallel decoding of all scans of a cohort: each image once, results in order."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from octdino.config.cohort import ImageSettings
from octdino.scans.preprocess import DecodedScan, decode_scan
from octdino.scans.sources import ImageSource

BATCH = 16  # files per task, to save messages between processes
FEW = 128  # files that are decoded faster than processes start


def decode_scans(paths: list[str], source: ImageSource, settings: ImageSettings, workers: int) -> Iterator[DecodedScan]:
    """Decode the image of each path, in the same order; only some batches are in memory at a time."""
    if workers <= 1 or len(paths) <= FEW:
        for path in paths:
            yield decode_scan(path, settings, source)
        return
    # Spawned, not forked: a fork copies the locks of the caller's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        try:
            yield from _in_order(pool, paths, source, settings, 4 * workers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, paths: list[str], source: ImageSource, settings: ImageSettings, ahead: int
) -> Iterator[DecodedScan]:
    pending: deque[Future[list[DecodedScan]]] = deque()
    for start in range(0, len(paths), BATCH):
        pending.append(pool.submit(_read_batch, paths[start : start + BATCH], source, settings))
        if len(pending) > ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _read_batch(paths: list[str], source: ImageSource, settings: ImageSettings) -> list[DecodedScan]:
    return [decode_scan(path, settings, source) for path in paths]


def _end_with_parent() -> None:
    """End this process when its parent is killed; it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
