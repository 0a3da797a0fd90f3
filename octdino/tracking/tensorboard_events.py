"""TensorBoard: event files in the run's folder `tensorboard`, for `tensorboard --logdir results`."""

import shutil
from collections.abc import Mapping
from typing import Any

from octdino.tracking.tracker import Tracked


class TensorBoardEvents:
    """Writes one event file; a resumed run writes its whole history again, so that every step is there once."""

    run_id = ""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        shutil.rmtree(run.events, ignore_errors=True)
        self._writer: Any = SummaryWriter(str(run.events))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one scalar per metric, and write them."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, *, completed: bool) -> None:
        """Close the event file."""
        self._writer.close()


def start(run: Tracked, run_id: str) -> TensorBoardEvents:
    """Start the event file of a run."""
    return TensorBoardEvents(run)
