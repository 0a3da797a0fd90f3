"""Pictures and trackers of a run while it trains: the sheet of its views, its learning curves, its trackers.

All of it is written beside the run's outputs and is declared by no rule: Snakemake deletes the declared outputs of a
failed job, after which these are still needed. Nothing here changes a weight, and no failure here ends a training.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from octdino.augment.view_sheet import ScanRow, write_view_sheet
from octdino.errors import one_line
from octdino.tracking import RunTracking, Tracked
from octdino.training.distributed import is_rank0
from octdino.training.learning_curves import LearningCurves, Panel, Rows

log = logging.getLogger("octdino.training")

VIEWS, CURVES, RECONSTRUCTION = "views.png", "curves.svg", "reconstruction.png"  # in the run's folder
Sheet = tuple[Sequence[ScanRow], str]  # rows and caption


class RunMonitor:
    """The sheet, the curves and the trackers of one run; no-ops in all processes but that of rank 0.

    Args:
        run: its description for trackers.
        trackers: of `check_installed`.
        panels: of the curves.
        x: column of the curves' horizontal axis.

    Attributes:
        name: of the run below results/{cohort}.
    """

    def __init__(self, run: Tracked, trackers: Sequence[str], panels: Sequence[Panel], x: str) -> None:
        self.name = run.name
        self._out, self._run = run.folder, run
        self._trackers = list(trackers) if is_rank0() else []
        self._curves = LearningCurves(run.folder / CURVES, panels, x)
        self._failed: set[str] = set()

    def clear(self) -> None:
        """Delete what an earlier run has left, records of trackers included, before a training from the first step."""
        if not is_rank0():
            return
        self._run.delete()
        for name in (VIEWS, CURVES, RECONSTRUCTION):
            with contextlib.suppress(OSError):  # a folder of that name: writing the file is a warning
                (self._out / name).unlink()

    def show_views(self, make: Callable[[], Sheet]) -> None:
        """Write the sheet of views that `make` returns."""
        if is_rank0():
            self._try(VIEWS, lambda: write_view_sheet(self._out / VIEWS, *make()))

    def show_reconstruction(self, make: Callable[[], Sheet | None]) -> None:
        """Write the sheet of reconstructed scans that `make` returns, or delete an earlier one if it returns None."""
        if is_rank0():
            self._try(RECONSTRUCTION, lambda: self._write_reconstruction(make()))

    def _write_reconstruction(self, sheet: Sheet | None) -> None:
        if sheet:
            write_view_sheet(self._out / RECONSTRUCTION, *sheet)
        else:
            (self._out / RECONSTRUCTION).unlink(missing_ok=True)

    def show_curves(self, lines: Mapping[str, Rows], *, last: bool = False) -> None:
        """Draw the histories by name; `last`: even if that was done a moment ago."""
        if is_rank0() and any(lines.values()):
            self._try(CURVES, lambda: self._curves.update(lines, last=last))

    def track(self) -> RunTracking:
        """Return the trackers of the run: a context in which it trains."""
        return RunTracking(self._trackers, self._run)

    def _try(self, name: str, write: Callable[[], object]) -> None:
        """Write a file; the first failure is a warning, after which it is left out."""
        if name in self._failed:
            return
        try:
            write()
        except Exception as error:  # hours of training are worth more than a picture
            self._failed.add(name)
            log.warning("%s is left out from here on: %s", self._out / name, one_line(error))
