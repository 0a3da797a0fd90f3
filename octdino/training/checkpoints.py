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
    """The resumable state of a run, in a folder that no rule declares (declared outputs are deleted on a kill).

    `step-N.pt` are checkpoints, each written under another name first; `mark.json` says what they belong to, and
    another fingerprint starts afresh; `lock` is held while a trainer runs and freed by the system when it dies, so a
    stale lock cannot exist. Of several processes only the first reads and writes here.

    Args:
        fingerprint: settings and input; plain values.
        every_seconds: between two checkpoints.
        keep: how many of the latest checkpoints stay.
        length: of the run; a finished run may be extended to a greater one.
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
        """Hold the run; a second trainer of the same run is refused with the owner's name."""
        if not is_rank0():
            yield self
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise UserError(f"{self.folder}: another trainer works here: {lock.read().strip()}") from None
            lock.truncate(0)
            job = os.environ.get("SLURM_JOB_ID")
            lock.write(f"process {os.getpid()} on {socket.gethostname()}" + (f", job {job}" if job else ""))
            lock.flush()
            yield self

    def load(self, check: Check = lambda _: None, *, extend: bool = False) -> dict[str, Any] | None:
        """The newest checkpoint that can be resumed from, else None; tensors on the CPU, nothing executable.

        A finished run is not resumed (who asks for it again wants it anew) unless `extend` and it was shorter.

        Args:
            check: raises CheckpointError if a checkpoint does not fit the run.
        """
        return broadcast_from_rank0(lambda: self._load(extend, check))

    def _load(self, extend: bool, check: Check) -> dict[str, Any] | None:
        before = self._read_mark()
        same = before.get("fingerprint") == self._mark["fingerprint"]
        unfinished = same and before["length"] == self._mark["length"] and not before["finished"]
        longer = same and before["length"] < self._mark["length"] and before["finished"]
        extended = longer or (unfinished and before["extended"])
        wanted = (unfinished or longer) and (extend or not extended)
        state = self._newest(check) if wanted else None
        if state is None:
            if (found := self._checkpoints()) and not wanted:
                log.warning("%s: not of this very run, or of one that was finished; starting afresh", found[-1])
            for path in self.folder.glob("*step-*.pt"):  # those that a kill left half written, too
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
        except UserError as error:  # a crash of the machine has left it empty
            log.warning("%s", error)
            return {}
        if mark.keys() != self._mark.keys() or any(type(mark[key]) is not type(self._mark[key]) for key in mark):
            log.warning("%s: is no mark of a run", path)
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
        """Whether the last save is older than the interval."""
        return is_rank0() and time.monotonic() - self._saved_at >= self._every

    def save(self, state: dict[str, Any], step: int) -> None:
        """Add the checkpoint of `step` and take away all but the latest; a kill leaves what was there before."""
        if not is_rank0():
            return
        path = self.folder / f"step-{step:09d}.pt"
        with replacing(path) as temporary:
            check_disk(self.folder, tensor_bytes(state), path.name, SPARE)
            with DeferringFile(temporary) as file:
                torch.save(state, file)
                file.check()
                os.fsync(file.fileno())  # on the disk before the earlier one goes
        for path in self._checkpoints()[: -self._keep]:
            path.unlink()
        self._saved_at = time.monotonic()

    def stop(self, state: dict[str, Any], step: int, reason: str) -> None:
        """Save, and end with exit code 75."""
        self.save(state, step)
        raise StoppedEarly(f"stopped by {reason} after saving; run the same command again to go on")

    def finish(self) -> None:
        """The run has ended, its last checkpoint is its end, and it may be extended from there."""
        self._mark["finished"] = True
        self._write_mark()

    def discard(self) -> None:
        """The run is finished for good: forget the state, so that a forced rerun starts from the beginning."""
        shutil.rmtree(self.folder)
