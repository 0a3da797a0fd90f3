"""TensorBoard event files of a pretraining history."""

import shutil
from pathlib import Path
from typing import Any

from octdino.errors import UserError


def summary_writer() -> Any:
    """Return TensorBoard's class SummaryWriter.

    Raises:
        UserError: the tensorboard package is not installed.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise UserError("tensorboard: its package is missing; pip install tensorboard, or set it to false") from None
    return SummaryWriter


def clear_events(folder: Path) -> None:
    """Delete the event files of an earlier run."""
    shutil.rmtree(folder, ignore_errors=True)


def write_events(folder: Path, history: list[dict[str, float]]) -> None:
    """Write the whole history to `folder`, replacing earlier files, so that a resumed run shows every epoch once."""
    clear_events(folder)
    with summary_writer()(str(folder)) as writer:
        for row in history:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    writer.add_scalar(name, value, int(row["step"]))
