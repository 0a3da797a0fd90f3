"""All trackers of one run, each in a thread of its own: training neither waits for one nor ends with it."""

import importlib
import importlib.util
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from octdino.config.tracking import TrackerName
from octdino.data.atomic_files import read_json, replacing
from octdino.errors import UserError, one_line
from octdino.tracking.tracker import StartTracker, Tracked

log = logging.getLogger("octdino.tracking")

FINISH_SECONDS, STOP_SECONDS = 60.0, 10.0  # waited for trackers at the end, and where a signal stops the run
RECORDS = "tracker-*.json"  # in the state folder: what each tracker has
MODULES = {  # of this room, by tracker
    "tensorboard": "tensorboard_events",
    "wandb": "wandb_run",
    "mlflow": "mlflow_run",
    "trackio": "trackio_run",
}


def _needed(name: str) -> tuple[tuple[str, ...], str]:
    """Return the packages that a tracker imports, and what pip installs for it."""
    if name != "mlflow":
        return (name,), name
    if os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        return ("mlflow",), "mlflow-skinny"
    # For mlflow.db; not the whole of `mlflow`, which holds back pyarrow.
    return ("mlflow", "alembic", "sqlalchemy"), "mlflow-skinny alembic sqlalchemy"


def _is_missing(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is None
    except ValueError:  # it is in sys.modules without a spec
        return False


def check_installed(wanted: Sequence[TrackerName]) -> list[str]:
    """Return the trackers that `tracking` names: none for `none`, TensorBoard for `auto` if it is installed.

    Raises:
        UserError: the package of a tracker is missing.
    """
    found: list[str] = []
    for name in wanted:
        if name == "auto":
            found += ["tensorboard"] if not _is_missing("tensorboard") else []
        elif name != "none":
            packages, install = _needed(name)
            if missing := [package for package in packages if _is_missing(package)]:
                raise UserError(f"tracking: {name}: package {missing[0]} is missing; pip install {install}")
            found.append(name)
    return list(dict.fromkeys(found))


class Row(NamedTuple):
    """Metrics at a step."""

    step: int
    metrics: Mapping[str, float]


class RunTracking:
    """The trackers of one run, as a context: started on entry with what is known so far, finished on exit.

    Args:
        trackers: of `check_installed`.
        run: what they are told.
        earlier: the history of a resumed run; each tracker gets what it does not have yet.
    """

    def __init__(self, trackers: Sequence[str], run: Tracked, earlier: Sequence[Row] = ()) -> None:
        self._workers = [_Worker(name, run) for name in trackers]
        for row in earlier:
            self.log(row.step, row.metrics)

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        until = time.monotonic() + (FINISH_SECONDS if kind is None else STOP_SECONDS)
        for worker in self._workers:
            worker.queue.put(kind is None)
        for worker in self._workers:
            worker.join(max(until - time.monotonic(), 0))
            worker.abandon()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand the metrics of a step to all trackers; returns at once."""
        for worker in self._workers:
            worker.queue.put(Row(step, dict(metrics)))


class _Worker(threading.Thread):
    """Thread of one tracker. Its first error is a warning, and its last: the thread ends.

    `tracker-NAME.json` in the state folder records the run's id and the last step that the tracker has, -1 before the
    first. It alone decides: where it exists, this process appends to the same run and skips the epochs that are trained
    a second time; `RunMonitor.clear` deletes it before a training from the first step.
    """

    def __init__(self, name: str, run: Tracked) -> None:
        super().__init__(name=f"tracker-{name}", daemon=True)
        self.queue: queue.SimpleQueue[Row | bool] = queue.SimpleQueue()
        self._tracker, self._run, self._abandoned = name, run, False
        self._record = run.state / f"tracker-{'-'.join(filter(None, (name, run.series)))}.json"

    def run(self) -> None:
        try:
            self._follow()
        except Exception as error:  # of a package, a server or a disk; training goes on
            if not self._abandoned:
                log.warning("tracking: %s failed and is left out from here on: %s", self._tracker, one_line(error))

    def _follow(self) -> None:
        start: StartTracker = importlib.import_module(f"octdino.tracking.{MODULES[self._tracker]}").start
        run_id, last = self._read_record()
        tracker = start(self._run, run_id)
        if not tracker.run_id:
            last = -1
        self._write_record(tracker.run_id, last)  # also where the run is killed before its first row
        while isinstance(item := self.queue.get(), Row):
            if item.step > last:
                tracker.log(item.step, item.metrics)
                self._write_record(tracker.run_id, item.step)
        tracker.finish(completed=item)

    def _read_record(self) -> tuple[str, int]:
        """Return run id and last step of an earlier process; "" and -1 where there was none or it left no record."""
        if not self._record.is_file():
            return "", -1
        try:
            found = read_json(self._record, "pretrain")
        except UserError:  # left empty by a crash of the machine
            return "", -1
        run_id, step = found.get("run"), found.get("step")
        return (run_id, step) if isinstance(run_id, str) and isinstance(step, int) else ("", -1)

    def _write_record(self, run_id: str, step: int) -> None:
        if run_id and not self._abandoned:
            with replacing(self._record) as temporary:
                temporary.write_text(json.dumps({"run": run_id, "step": step}) + "\n")

    def abandon(self) -> None:
        """Leave a tracker that has not finished in time; it writes nothing any more below the run's folder."""
        self._abandoned = True
        if self.is_alive():
            log.warning("tracking: %s has not finished in time; what it had not sent is lost", self._tracker)
