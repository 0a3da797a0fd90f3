"""History of a pretraining run: rows of history.csv, log line per epoch, collapse warnings, best epoch."""

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from octdino.config import PretrainSettings
from octdino.errors import UserError
from octdino.pretrain.collapse import collapse_warnings
from octdino.progress import duration

log = logging.getLogger("octdino.pretrain")

LOGGED = ("loss", "knn_accuracy", "knn_auroc", "teacher_entropy", "feature_std")


class History:
    """What a run has measured so far.

    Args:
        settings: of the pretrain stage.

    Attributes:
        rows: one per finished epoch, the columns of history.csv.
        sums: float64 sums of this epoch's scalars over the steps that were taken, on the device.
        best: score, epoch and weights of the best epoch so far, if `settings.export` is "best"; else empty.
    """

    def __init__(self, settings: PretrainSettings) -> None:
        self._settings = settings
        self.rows: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.best: dict[str, Any] = {}

    def add_step(self, scalars: dict[str, Tensor], taken: Tensor) -> None:
        """Add a step's scalars to the epoch's sums where `taken` (bool [], on the device) is true; does not wait."""
        for key, value in {**scalars, "taken": torch.ones_like(taken, dtype=torch.float64)}.items():
            self.sums[key] = self.sums.get(key, 0) + torch.where(taken, value.double(), 0)

    def close_epoch(self) -> tuple[dict[str, float], float]:
        """Return the epoch's mean scalars (NaN if no step was taken) and the number of steps taken; reset the sums."""
        taken = self.sums.pop("taken", torch.zeros(())).item()
        means = {key: value.item() / taken if taken else math.nan for key, value in self.sums.items()}
        self.sums = {}
        return means, taken

    def add_epoch(self, row: dict[str, float], seconds_left: float) -> None:
        """Append the row of a finished epoch, log it, warn of a collapse that it shows first."""
        epochs = self._settings.length
        before = collapse_warnings(self.rows, epochs)
        self.rows.append(row)
        log.info(
            "epoch %d/%d %s %.0f img/s, data wait %.1f %%, augmentation %.1f %%, MFU %.0f %%, %s left",
            row["epoch"], epochs, " ".join(f"{key} {row[key]:.4g}" for key in LOGGED if key in row),
            row["images_per_second"], 100 * row["data_wait"], 100 * row["augmentation"], 100 * row["utilisation"],
            duration(seconds_left),
        )  # fmt: skip
        for warning in collapse_warnings(self.rows, epochs):
            if warning not in before:
                log.warning("%s", warning)

    def keep_best(self, row: dict[str, float], exported: nn.Module) -> None:
        """Copy the weights of `exported` if this epoch's kNN score is the best so far and the best are exported."""
        score = row.get("knn_accuracy", row.get("knn_auroc", float("-inf")))
        if self._settings.export == "best" and score > self.best.get("score", float("-inf")):
            weights = {key: value.detach().clone() for key, value in exported.state_dict().items()}
            self.best = {"score": score, "epoch": int(row["epoch"]), "weights": weights}

    def load_export(self, exported: nn.Module) -> int:
        """Load the weights to be exported, last or best, into `exported`; return their epoch.

        Raises:
            UserError: the best are asked for, and no epoch had a finite kNN score.
        """
        if self._settings.export == "last":
            return self._settings.length
        if not self.best:
            raise UserError("export: best: the online kNN had no finite score at any epoch; use last")
        exported.load_state_dict(self.best["weights"])
        epoch: int = self.best["epoch"]
        return epoch
