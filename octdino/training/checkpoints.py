"""Checkpoints of a run, and the lock file that keeps a second trainer out."""

import fcntl
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from octdino.data.atomic_files import DeferringFile, read_json, replacing
from octdino.data.disk_space import SPARE, check_disk
from octdino.data.safetensors_torch import tensor_bytes
from octdino.errors import StoppedEarly, UserError
from octdino.training.checkpoint_reader import CheckpointError, read_checkpoint
from octdino.training.distributed import broadcast_from_rank0, is_rank0

log = logging.getLogger("octdino.training")
Check = Callable[[dict[str, Any]], None]


class RunState:
    """Checkpoints of a run, in a folder that is no rule's output (Snakemake deletes outputs of a killed job).

    `step-N.pt` are checkpoints, each written under a temporary name and renamed. `mark.json` contains the fingerprint
    of their run; with another fingerprint training starts again. `lock` is a lock file, held while a trainer runs and
    released by the system when it dies, so a stale lock cannot exist. Only rank 0 reads and writes here.

    Args:
        fingerprint: settings and input; plain values.
        every_seconds: time between two checkpoints.
        keep: how many of the latest checkpoints to keep.
        length: of the run; a finished run may be extended to a greater length.
    """

    def __init__(
        self, folder: Path, fingerprint: dict[str, Any], every_seconds: float, *, keep: int = 1, length: int = 0
    ) -> None:
        self.folder = folder
        self._mark = {"fingerprint": json.loads(json.dumps(fingerprint)), "length": length}
        self._mark |= {"finished": False, "extended": False}
        self._every, self._keep = every_seconds, keep
        self._saved_at = time.monotonic()

    @contextmanager
    def locked(self) -> Iterator["RunState"]:
        """Hold the lock; raises UserError with its owner if another trainer holds it."""
        if not is_rank0():
            yield self
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise UserError(f"{self.folder}: locked by another trainer: {lock.read().strip()}") from None
            lock.truncate(0)
            job = os.environ.get("SLURM_JOB_ID")
            lock.write(f"process {os.getpid()} on {socket.gethostname()}" + (f", job {job}" if job else ""))
            lock.flush()
            yield self

    def load(self, check: Check = lambda _: None, *, extend: bool = False) -> dict[str, Any] | None:
        """Return the latest checkpoint that can be resumed from, else None; tensors on the CPU, nothing is executed.

        A finished run starts again, unless `extend` is set and it was shorter.

        Args:
            check: raises CheckpointError if a checkpoint does not fit the run.
        """
        return broadcast_from_rank0(lambda: self._load(extend, check))

    def _load(self, extend: bool, check: Check) -> dict[str, Any] | None:
        previous = self._read_mark()
        same = previous.get("fingerprint") == self._mark["fingerprint"]
        unfinished = same and previous["length"] == self._mark["length"] and not previous["finished"]
        longer = same and previous["length"] < self._mark["length"] and previous["finished"]
        extended = longer or (unfinished and previous["extended"])
        resumable = (unfinished or longer) and (extend or not extended)
        state = self._newest(check) if resumable else None
        if state is None:
            if (checkpoints := self._checkpoints()) and not resumable:
                log.warning(
                    "%s: checkpoint fingerprint does not match, or the run has already finished; starting again",
                    checkpoints[-1],
                )
            for path in self.folder.glob("*step-*.pt"):  # half-written ones of a killed run as well
                path.unlink()
        self._mark["extended"] = bool(state is not None and extended)
        self._write_mark()
        return state

    def _read_mark(self) -> dict[str, Any]:
        path = self.folder / "mark.json"
        if not path.is_file():
            return {}
        try:
            mark = read_json(path, "pretrain")
        except UserError as error:  # left empty by a crash of the machine
            log.warning("%s", error)
            return {}
        if mark.keys() != self._mark.keys() or any(type(mark[key]) is not type(self._mark[key]) for key in mark):
            log.warning("%s: does not have the keys and types of a run's mark; starting again", path)
            return {}
        return mark

    def _write_mark(self) -> None:
        with replacing(self.folder / "mark.json") as temporary:
            temporary.write_text(json.dumps(self._mark, indent=2, sort_keys=True) + "\n")

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _newest(self, check: Check) -> dict[str, Any] | None:
        for path in reversed(self._checkpoints()):
            try:
                state = read_checkpoint(path)
                check(state)
            except CheckpointError as why:
                log.warning("%s: %s; resuming from an earlier checkpoint, or starting again", path, why)
            else:
                return state
        return None

    def due(self) -> bool:
        """Return whether the last checkpoint is older than the interval."""
        return is_rank0() and time.monotonic() - self._saved_at >= self._every

    def save(self, state: dict[str, Any], step: int) -> None:
        """Write the checkpoint of `step` and delete all but the latest; a kill meanwhile leaves the earlier ones."""
        if not is_rank0():
            return
        path = self.folder / f"step-{step:09d}.pt"
        with replacing(path) as temporary:
            check_disk(self.folder, tensor_bytes(state), path.name, SPARE)
            with DeferringFile(temporary) as file:
                torch.save(state, file)
                file.check()
                os.fsync(file.fileno())  # on the disk before an earlier one is deleted
        for path in self._checkpoints()[: -self._keep]:
            path.unlink()
        self._saved_at = time.monotonic()

    def stop(self, state: dict[str, Any], step: int, reason: str) -> None:
        """Save, and raise StoppedEarly (exit code 75)."""
        self.save(state, step)
        raise StoppedEarly(f"stopped by {reason} after saving; run the same command again to resume")

    def finish(self) -> None:
        """Mark the run as finished; it may be extended from its last checkpoint."""
        self._mark["finished"] = True
        self._write_mark()

    def discard(self) -> None:
        """Delete all checkpoints of a finished run, so that a forced rerun starts from the beginning."""
        shutil.rmtree(self.folder)
