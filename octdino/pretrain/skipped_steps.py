"""Steps without a finite loss and gradient: counted, their scans written down, and a limit to their number."""

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
        scans_of: the scan ids of a step.
        limit: so many may be skipped.
        total: steps of the run; if all are skipped, nothing was trained.

    Attributes:
        steps: (step, its scan ids), in order; part of a checkpoint.
    """

    def __init__(self, file: Path, scans_of: Callable[[int], list[str]], limit: int, total: int) -> None:
        self.file, self._scans_of, self._limit, self._total = file, scans_of, limit, total
        self.steps: list[tuple[int, list[str]]] = []
        self._unread: list[tuple[int, Tensor]] = []  # on the device, so that no step waits for it

    def add(self, step: int, skipped: Tensor) -> None:
        """Note whether a step was skipped, bool [] on the device."""
        self._unread.append((step, skipped))

    def read(self) -> None:
        """Wait for the device and write down what was skipped since the last call.

        Raises:
            UserError: more steps than the limit were skipped, or all steps of the run.
        """
        flags = torch.stack([flag for _, flag in self._unread]).tolist() if self._unread else []
        found = [step for (step, _), flag in zip(self._unread, flags, strict=True) if flag]
        self._unread = []
        if not found:
            return
        self.steps += [(step, self._scans_of(step)) for step in found]
        if not is_rank0():
            return
        with replacing(self.file) as temporary:
            table = [{"step": step, "scan_id": name} for step, scans in self.steps for name in scans]
            pd.DataFrame(table).to_csv(temporary, index=False)
        for step in found:
            log.warning("step %d: no finite loss and gradient; skipped, its scans are in %s", step, self.file)
        count, remedy = len(self.steps), "expected none: lower lr, set clip_grad, or use precision float32"
        if count > self._limit:
            why = f"{count} steps had no finite loss and gradient, more than max_skipped ({self._limit})"
            raise UserError(f"{self.file}: {why}; {remedy}")
        if count == self._total:
            raise UserError(f"{self.file}: all {count} steps had no finite loss and gradient; {remedy}")
