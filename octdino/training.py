"""What every training loop shares: device, precision, schedules, optimiser, and a state that survives a kill."""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from octdino.checkpoints import CheckpointError, read_checkpoint
from octdino.disk import SPARE, check_disk
from octdino.errors import StoppedEarly, UserError
from octdino.files import DeferringFile, read_json, replacing
from octdino.ranks import any_says, from_first, is_first
from octdino.tensors import tensor_bytes

log = logging.getLogger("octdino.training")
Check = Callable[[dict[str, Any]], None]

AUTO_PRECISION = "OCTDINO_AUTO_PRECISION"  # environment variable: what `precision: auto` takes


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_freed_memory() -> None:
    """Have the C library keep the large blocks that a step on the CPU frees, for the next step to take.

    glibc would give them back to the system, which clears every page before it hands it out again: a tenth of a step.
    Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes: what lies free at the end of the heap stays there


def resolve_precision(device: torch.device, precision: str) -> str:
    """float32 or bfloat16: as asked for, or for "auto" bfloat16 if this hardware multiplies it natively.

    A CPU without AVX-512 bf16 or AMX emulates bfloat16 ten times slower than float32. The environment variable
    OCTDINO_AUTO_PRECISION overrides what "auto" takes, so that one kind of machine can be tried on another.

    Raises:
        UserError: the environment variable is neither float32 nor bfloat16.
    """
    if precision != "auto":
        return precision
    if chosen := os.environ.get(AUTO_PRECISION):
        if chosen not in ("float32", "bfloat16"):
            raise UserError(f"environment variable {AUTO_PRECISION}: {chosen!r}; expected float32 or bfloat16")
        return chosen
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_bf16()
    return "bfloat16" if native else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 autocast if `resolve_precision` says bfloat16, else a disabled one. Weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(device, precision) == "bfloat16")


def _cpu_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on all `parts`: each step's randomness has its own, so none has to be saved."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def cosine(progress: float, start: float, end: float) -> float:
    """From `start` at progress 0 to `end` at progress 1 on half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def warmup_cosine(progress: float, peak: float, end: float, warmup: float) -> float:
    """Linear from 0 to `peak` over the share `warmup`, then half a cosine to `end` (Loshchilov & Hutter 2017)."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine((progress - warmup) / (1 - warmup), peak, end)


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels, which decay, and biases, norms and other vectors, which must not."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": False, "weight_decay": 0.0},
    ]


def set_schedule(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Set this step's learning rate, times a group's `lr_scale`, and the weight decay of the groups that decay."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        if group["decays"]:
            group["weight_decay"] = weight_decay


def make_optimizer(kind: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """adamw, or sgd with momentum 0.9: all parameters in one kernel, with the learning rate still to be set."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=True)
    for group in optimizer.param_groups:  # a first step that is not taken would leave the kernel's own uninitialised
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def step_if(optimizer: torch.optim.Optimizer, taken: Tensor) -> None:
    """Step, unless `taken` (bool [], on the device) is false: the kernel looks, and the host need not wait for it."""
    optimizer.found_inf = (~taken).float()  # type: ignore[attr-defined]  # as GradScaler tells a fused optimiser
    optimizer.step()


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float, taken: Tensor) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for parameters; buffers stay the teacher's own.

    Where `taken` (bool [], on the device) is false the teacher stays as it is.
    """
    averages: list[Tensor] = list(teacher.parameters())
    current: list[Tensor] = list(student.parameters())
    changes = torch._foreach_sub(current, averages)
    torch._foreach_mul_(changes, taken * (1 - momentum))
    torch._foreach_add_(averages, changes)


class Stopper:
    """Turns SIGTERM, SIGINT and a time budget into one question that is asked between two steps."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.reason: str | None = None
        self._deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes

    @contextmanager
    def listening(self) -> Iterator["Stopper"]:
        """Catch the signals inside the block only."""
        before = {s: signal.signal(s, self._caught) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _caught(self, number: int, _: FrameType | None) -> None:
        self.reason = signal.Signals(number).name

    def asked(self) -> str | None:
        """Why to stop now, or None; all processes stop together."""
        if self.reason is None and time.monotonic() > self._deadline:
            self.reason = "the time limit"
        if any_says(self.reason is not None) and self.reason is None:
            self.reason = "another process's signal or time limit"
        return self.reason


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
        if not is_first():
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
        return from_first(lambda: self._load(extend, check))

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
        return is_first() and time.monotonic() - self._saved_at >= self._every

    def save(self, state: dict[str, Any], step: int) -> None:
        """Add the checkpoint of `step` and take away all but the latest; a kill leaves what was there before."""
        if not is_first():
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
