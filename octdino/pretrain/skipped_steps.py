"""Skipped steps, whose loss or gradient is not finite: their count, their scans in skipped.csv, and an upper limit."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from octdino.data.atomic_files import replacing
from octdino.errors import UserError
from octdino.training.distributed import is_rank0

log = logging.getLogger("octdino.pretrain")


class SkippedSteps:
    """The steps of a run that changed nothing.

    Args:
        file: skipped.csv, one row per scan of a skipped step.
        scan_ids: returns the scan ids of a step.
        limit: how many steps may be skipped.
        total: steps of the run; if all are skipped, nothing was trained.

    Attributes:
        steps: (step, its scan ids), in order; part of a checkpoint.
    """

    def __init__(self, file: Path, scan_ids: Callable[[int], list[str]], limit: int, total: int) -> None:
        self.file, self._scan_ids, self._limit, self._total = file, scan_ids, limit, total
        self.steps: list[tuple[int, list[str]]] = []
        self._unread: list[tuple[int, Tensor]] = []  # on the device, so that no step waits for it

    def add(self, step: int, skipped: Tensor) -> None:
        """Store whether a step was skipped, bool [] on the device; does not wait for it."""
        self._unread.append((step, skipped))

    def read(self) -> None:
        """Wait for the device, and write to `file` which steps since the last call were skipped.

        Raises:
            UserError: more steps than the limit were skipped, or all steps of the run.
        """
        flags = torch.stack([flag for _, flag in self._unread]).tolist() if self._unread else []
        skipped = [step for (step, _), flag in zip(self._unread, flags, strict=True) if flag]
        self._unread = []
        if not skipped:
            return
        self.steps += [(step, self._scan_ids(step)) for step in skipped]
        if not is_rank0():
            return
        with replacing(self.file) as temporary:
            table = [{"step": step, "scan_id": scan_id} for step, scans in self.steps for scan_id in scans]
            pd.DataFrame(table).to_csv(temporary, index=False)
        for step in skipped:
            log.warning("step %d: loss or gradient not finite; skipped, its scans are in %s", step, self.file)
        count, remedy = len(self.steps), "expected none: lower lr, set clip_grad, or use precision float32"
        if count > self._limit:
            why = f"{count} steps had no finite loss and gradient, more than max_skipped ({self._limit})"
            raise UserError(f"{self.file}: {why}; {remedy}")
        if count == self._total:
            raise UserError(f"{self.file}: all {count} steps had no finite loss and gradient; {remedy}")
