"""Reading of safetensors files as NumPy arrays, without importing torch (for evaluate and report)."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors.numpy import load_file

from octdino.errors import UserError

T = TypeVar("T")


def read_safetensors(path: Path, made_by: str, load: Callable[[Path], T]) -> T:
    """Read a safetensors file by `load`, a function of the library.

    Args:
        made_by: the command that writes it, for messages.

    Raises:
        UserError: the file is missing, cannot be read, or is no safetensors file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `octdino {made_by}` writes it")
    try:
        return load(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # SafetensorError; KeyError and others at types that numpy or torch lacks
        raise UserError(f"{path}: not a safetensors file: {error}") from None


def read_arrays(path: Path, made_by: str) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file by name.

    Raises:
        UserError: as `read_safetensors`.
    """
    found: dict[str, np.ndarray] = read_safetensors(path, made_by, load_file)
    return found
