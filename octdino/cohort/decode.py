"""Every picture of a cohort, in order, decoded once by as many processes as there are cores."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from octdino.cohort.images import Picture, read_picture
from octdino.cohort.sources import Source
from octdino.config.cohort import ImageSettings

BATCH = 16  # files a task: a process is not asked for each
FEW = 128  # files that are read sooner than processes start


def read_pictures(paths: list[str], source: Source, settings: ImageSettings, workers: int) -> Iterator[Picture]:
    """The picture that `source` has for each path, in the same order; only some batches are in memory at a time."""
    if workers <= 1 or len(paths) <= FEW:
        for path in paths:
            yield read_picture(path, settings, source)
        return
    # Started afresh and not forked: a fork copies locks of whatever threads the caller has.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        try:
            yield from _in_order(pool, paths, source, settings, 4 * workers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, paths: list[str], source: Source, settings: ImageSettings, ahead: int
) -> Iterator[Picture]:
    pending: deque[Future[list[Picture]]] = deque()
    for start in range(0, len(paths), BATCH):
        pending.append(pool.submit(_read_batch, paths[start : start + BATCH], source, settings))
        if len(pending) > ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _read_batch(paths: list[str], source: Source, settings: ImageSettings) -> list[Picture]:
    return [read_picture(path, settings, source) for path in paths]


def _end_with_parent() -> None:
    """A killed command leaves no process behind: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
