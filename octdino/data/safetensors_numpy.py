"""Reading and writing of safetensors files as NumPy arrays, without importing torch."""

import contextlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from octdino.data.atomic_files import replacing
from octdino.data.disk_space import SPARE, check_disk
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


def write_safetensors(path: Path, size: int, save: Callable[[Path], object]) -> None:
    """Write a safetensors file by `save`, atomically.

    Args:
        size: bytes of the arrays.
        save: writes the file, by a function of the library.

    Raises:
        UserError: too little disk space, or the file cannot be written.
    """
    with replacing(path) as temporary:
        check_disk(path.parent, size, path.name, SPARE)
        try:
            save(temporary)
            readable_as_other_files(temporary)
        except SafetensorError as error:  # an error of the disk comes as text
            raise UserError(f"{path}: cannot be written: {error}") from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name: byte for byte the file that `write_tensors` writes of such tensors.

    Raises:
        UserError: as `write_safetensors`.
    """
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # the library copies memory as it is
    write_safetensors(path, sum(array.nbytes for array in dense.values()), lambda file: save_file(dense, file))


def readable_as_other_files(path: Path) -> None:
    """Set a file's permissions to those of any new file: safetensors' files are readable by their owner alone.

    File systems without permissions refuse it, and need none of it.
    """
    other = path.with_name(f"{path.name}.new")
    with contextlib.suppress(OSError):
        other.touch()
        path.chmod(stat.S_IMODE(other.stat().st_mode))
    other.unlink(missing_ok=True)
