"""Device and mixed precision: float32, or bfloat16 or float16 under autocast."""

import contextlib
import ctypes
import os

import torch

from octdino.errors import UserError

TENSOR_CORES = (7, 0)  # compute capability from which a GPU multiplies float16 natively
AUTO_PRECISION = "OCTDINO_AUTO_PRECISION"  # environment variable that overrides `precision: auto`


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread(s)"


def keep_freed_memory() -> None:
    """Configure glibc to reuse the large memory blocks that a step on the CPU frees, for the next step.

    By default glibc returns them to the system, which clears every page before it is used again: a tenth of a step.
    A no-op with other C libraries.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes: free memory at the end of the heap is kept


def match_compiler_to_cpu() -> None:
    """Limit torch's compiler to the vector width that ATEN_CPU_CAPABILITY=avx2 limits torch's own kernels to.

    The compiler takes the width from the hardware. With torch 2.15.0 on a CPU with AVX-512, code of 512 bits beside
    kernels of 256 crashes or gives NaN.
    """
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        import torch._inductor.config as compiler  # seconds, only for runs that compile

        compiler.cpp.simdlen = 256


def resolve_precision(device: torch.device, precision: str) -> str:
    """Return float32, bfloat16 or float16: `precision` itself, or for "auto" what this hardware multiplies natively.

    That is bfloat16 if it can, else float16 on a GPU with tensor cores (V100, T4), else float32. A CPU without AVX-512
    bf16 or AMX emulates bfloat16 ten times slower than float32. The environment variable OCTDINO_AUTO_PRECISION
    overrides "auto", so that the precision of one kind of machine can be tested on another.

    Raises:
        UserError: the environment variable is none of the three.
    """
    if precision != "auto":
        return precision
    if chosen := os.environ.get(AUTO_PRECISION):
        if chosen not in ("float32", "bfloat16", "float16"):
            raise UserError(f"environment variable {AUTO_PRECISION}: {chosen!r}; expected float32, bfloat16 or float16")
        return chosen
    if device.type != "cuda":
        return "bfloat16" if _cpu_bf16() else "float32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return "float16" if torch.cuda.get_device_capability(device) >= TENSOR_CORES else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return autocast to what `resolve_precision` returns, a disabled one for float32. Weights stay float32."""
    resolved = resolve_precision(device, precision)
    half = torch.float16 if resolved == "float16" else torch.bfloat16
    return torch.autocast(device.type, half, enabled=resolved != "float32")


def _cpu_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
