"""Reading and writing of safetensors files as torch tensors; errors are one line that names the file."""

import contextlib
import stat
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from octdino.data.atomic_files import replacing
from octdino.data.disk_space import SPARE, check_disk
from octdino.data.safetensors_numpy import read_safetensors
from octdino.errors import UserError


def read_tensors(path: Path, made_by: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, on the CPU.

    Args:
        made_by: the command that writes it, for messages.

    Raises:
        UserError: the file is missing, cannot be read, or is no safetensors file.
    """
    tensors: dict[str, Tensor] = read_safetensors(path, made_by, load_file)
    return tensors


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, atomically.

    Raises:
        UserError: too little disk space, or the file cannot be written.
    """
    with replacing(path) as temporary:
        check_disk(path.parent, tensor_bytes(tensors), path.name, SPARE)
        try:
            save_file(tensors, temporary)
            readable_as_other_files(temporary)
        except SafetensorError as error:  # an error of the disk comes as text
            raise UserError(f"{path}: cannot be written: {error}") from None


def readable_as_other_files(path: Path) -> None:
    """Set a file's permissions to those of any new file: safetensors' files are readable by their owner alone.

    File systems without permissions refuse it, and need none of it.
    """
    other = path.with_name(f"{path.name}.new")
    with contextlib.suppress(OSError):
        other.touch()
        path.chmod(stat.S_IMODE(other.stat().st_mode))
    other.unlink(missing_ok=True)


def tensor_bytes(value: object) -> int:
    """Return the total bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(tensor_bytes(each) for each in value.values())
    return sum(tensor_bytes(each) for each in value) if isinstance(value, list | tuple) else 0
