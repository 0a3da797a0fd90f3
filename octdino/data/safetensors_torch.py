"""Reading and writing of safetensors files as torch tensors; errors are one line that names the file."""

from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from octdino.data.safetensors_numpy import read_safetensors, write_safetensors


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
    write_safetensors(path, tensor_bytes(tensors), lambda file: save_file(tensors, file))


def arrays_of(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return tensors as NumPy arrays, which on a CPU share their memory."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def tensor_bytes(value: object) -> int:
    """Return the total bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(tensor_bytes(each) for each in value.values())
    return sum(tensor_bytes(each) for each in value) if isinstance(value, list | tuple) else 0
