"""The device, and the precision that it computes in: float32, or bfloat16 under autocast."""

import contextlib
import ctypes
import os

import torch

from octdino.errors import UserError

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
