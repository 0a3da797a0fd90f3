"""The trackers of one run, one thread per tracker: training neither waits for one nor ends with it."""

import importlib
import importlib.util
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from octdino.config.tracking import TrackerName
from octdino.data.atomic_files import read_json, replacing
from octdino.errors import UserError, one_line
from octdino.tracking.tracker import StartTracker, Tracked

log = logging.getLogger("octdino.tracking")

FINISH_SECONDS, STOP_SECONDS = 60.0, 10.0  # waited for trackers at the end, and where a signal stops the run
MODULES = {  # of octdino.tracking, by tracker
    "tensorboard": "tensorboard_events",
    "wandb": "wandb_run",
    "mlflow": "mlflow_run",
    "trackio": "trackio_run",
}


def _packages(name: str) -> tuple[str, ...]:
    """Return the packages that a tracker imports; pip installs them with octdino's extra of the tracker's name."""
    if name != "mlflow" or os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        return (name,)
    return ("mlflow", "alembic", "sqlalchemy")  # for mlflow.db


def _is_missing(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is None
    except ValueError:  # it is in sys.modules without a spec
        return False


def check_installed(names: Sequence[TrackerName]) -> list[str]:
    """Return the trackers that `tracking` names: none for `none`, TensorBoard for `auto` if it is installed.

    Raises:
        UserError: the package of a tracker is missing.
    """
    installed: list[str] = []
    for name in names:
        if name == "auto":
            installed += ["tensorboard"] if not _is_missing("tensorboard") else []
        elif name != "none":
            if missing := [package for package in _packages(name) if _is_missing(package)]:
                raise UserError(f"tracking: {name}: package {missing[0]} is missing; pip install 'octdino[{name}]'")
            installed.append(name)
    return list(dict.fromkeys(installed))


class _Begin(NamedTuple):
    """Start of a training.

    Attributes:
        ended: an earlier process has trained it to its end.
    """

    run: Tracked
    ended: bool


class _Row(NamedTuple):
    step: int
    metrics: dict[str, float]


class _End(NamedTuple):
    completed: bool


class _Record(NamedTuple):
    """State of a tracker for one training: the id of its run, "" without one; the last step, -1 before the first."""

    run_id: str = ""
    step: int = -1
    finished: bool = False


class RunTracking:
    """The trackers of one run, as a context in which it trains. Nothing waits for a tracker but the exit.

    The exit waits at most FINISH_SECONDS, or STOP_SECONDS after an error, for all trackers together.

    Args:
        trackers: of `check_installed`.
        run: its description, without a series.
    """

    def __init__(self, trackers: Sequence[str], run: Tracked) -> None:
        self._run = run
        self._workers = [_Worker(name) for name in trackers]

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        deadline = time.monotonic() + (FINISH_SECONDS if kind is None else STOP_SECONDS)
        self._put(_End(completed=kind is None))
        for worker in self._workers:
            worker.join(max(deadline - time.monotonic(), 0))
            worker.abandon()

    def begin(self, history: Sequence[Mapping[str, float]], *, series: str = "", ended: bool = False) -> None:
        """Begin the training, or the next one of the run, whose predecessor is then complete; returns at once.

        Args:
            history: rows of an earlier process, each with a `step`; each tracker gets those that it does not have.
            series: name of the training, where the run has several.
            ended: an earlier process has trained it to its end.
        """
        self._put(_Begin(replace(self._run, series=series), ended))
        for row in history:
            self.log(row)

    def log(self, row: Mapping[str, float]) -> None:
        """Hand a row of the history, a `step` and metrics, to all trackers; returns at once."""
        metrics = {name: float(value) for name, value in row.items() if name != "step"}
        self._put(_Row(int(row["step"]), metrics))

    def _put(self, item: _Begin | _Row | _End) -> None:
        for worker in self._workers:
            worker.queue.put(item)


class _Worker(threading.Thread):
    """Thread of one tracker. Its first error is a warning, and its last: the thread ends.

    `Tracked.record` is the file of the `_Record` of a training. It alone decides: where it exists, this
    process appends to the same run and skips the epochs that are trained a second time; `Tracked.delete` deletes it
    before a training from the first step.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=f"tracker-{name}", daemon=True)
        self.queue: queue.SimpleQueue[_Begin | _Row | _End] = queue.SimpleQueue()
        self._tracker, self._abandoned = name, False

    def run(self) -> None:
        try:
            start: StartTracker = importlib.import_module(f"octdino.tracking.{MODULES[self._tracker]}").start
            item = self.queue.get()
            while isinstance(item, _Begin):
                item = self._track(start, item)
        except Exception as error:  # of a package, a server or a disk; training continues
            if not self._abandoned:
                log.warning("tracking: %s failed and is left out from here on: %s", self._tracker, one_line(error))

    def _track(self, start: StartTracker, training: _Begin) -> _Begin | _Row | _End:
        """Log the rows of one training; return the next item of the queue, which is no row."""
        path = training.run.record(self._tracker)
        record = _read_record(path)
        if training.ended and record.finished:
            while isinstance(item := self.queue.get(), _Row):
                pass
            return item
        tracker = start(training.run, record.run_id)
        step = record.step if tracker.run_id else -1
        self._write_record(path, _Record(tracker.run_id, step))  # also where the run is killed before its first row
        while isinstance(item := self.queue.get(), _Row):
            if item.step > step:
                tracker.log(item.step, item.metrics)
                step = item.step
                self._write_record(path, _Record(tracker.run_id, step))
        completed = not isinstance(item, _End) or item.completed
        tracker.finish(completed=completed)
        self._write_record(path, _Record(tracker.run_id, step, finished=completed))
        return item

    def _write_record(self, path: Path, record: _Record) -> None:
        if record.run_id and not self._abandoned:
            with replacing(path) as temporary:
                values = {"run": record.run_id, "step": record.step, "finished": record.finished}
                temporary.write_text(json.dumps(values) + "\n")

    def abandon(self) -> None:
        """Leave a tracker that has not finished in time; it writes nothing any more below the run's folder."""
        self._abandoned = True
        if self.is_alive():
            log.warning("tracking: %s has not finished in time; what it had not sent is lost", self._tracker)


def _read_record(path: Path) -> _Record:
    """Return the record of an earlier process; the default where there was none or it left no record."""
    if not path.is_file():
        return _Record()
    try:
        values = read_json(path, "pretrain")
    except UserError:  # left empty by a crash of the machine
        return _Record()
    run_id, step, finished = values.get("run"), values.get("step"), values.get("finished")
    if not isinstance(run_id, str) or not isinstance(step, int):
        return _Record()
    return _Record(run_id, step, finished is True)
