"""Interface of a tracker, and the description of a run that it gets."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

EVENTS = "tensorboard"  # in the run's folder


@dataclass(frozen=True)
class Tracked:
    """Description of one training for a tracker: one line in its charts.

    Attributes:
        project: name of the cohort in results/.
        stage: pretrain or classify.
        path: folder of the run below results/{cohort}.
        group: name of the runs that belong together.
        config: plain values; no patients and no scans.
        folder: of the run.
        series: name of the training, where a run has several, such as the candidates of a fine-tuning.
    """

    project: str
    stage: str
    path: str
    group: str
    config: dict[str, Any]
    folder: Path
    series: str = ""

    @property
    def name(self) -> str:
        """Path and series."""
        return f"{self.path}/{self.series}" if self.series else self.path

    @property
    def events(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.folder / EVENTS / self.series

    def record(self, tracker: str) -> Path:
        """Return the file that records what a tracker has of this training, beside the run's checkpoints."""
        return self.folder / "state" / f"tracker-{'-'.join(filter(None, (tracker, self.series)))}.json"

    def delete(self) -> None:
        """Delete the event files and the records of all trainings of the run."""
        shutil.rmtree(self.folder / EVENTS, ignore_errors=True)
        for record in self.folder.glob("state/tracker-*.json"):
            with contextlib.suppress(OSError):
                record.unlink()


class Tracker(Protocol):
    """What a tracker does with one run. Its functions may raise any error; they run in the tracker's thread.

    Attributes:
        run_id: with which a later process appends to the run; empty: the whole history is written again.
    """

    run_id: str

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step, each step once and in order."""

    def finish(self, *, completed: bool) -> None:
        """Write what is pending; `completed`: the training has reached its end."""


class StartTracker(Protocol):
    """Starts a tracker of one run, or resumes it."""

    def __call__(self, run: Tracked, run_id: str) -> Tracker:
        """Start tracking; `run_id` is that of an earlier process of the same training, or empty."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values with dotted keys, each value as text."""
    texts: dict[str, str] = {}
    for key, value in values.items():
        texts |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": str(value)}
    return texts
