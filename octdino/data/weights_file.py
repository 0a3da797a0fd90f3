"""Weights in safetensors files that one stage writes and another reads, named by SHA-256 in the metadata."""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from octdino.data.file_hash import sha256_of
from octdino.data.safetensors_torch import read_tensors, write_tensors
from octdino.errors import UserError


def write_weights(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors by name, atomically; return the SHA-256 of the file, for the metadata."""
    write_tensors(path, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return sha256_of(path)


def read_weights(path: Path, sha256: str | None, may_lack: Collection[str] = ()) -> dict[str, Tensor]:
    """Read what `write_weights` wrote.

    Args:
        sha256: as the metadata name it; None: the metadata name no file.
        may_lack: names of tensors in which NaN stands for a missing value, such as the labels of kNN.

    Raises:
        UserError: no such file, another one than the metadata name, no safetensors file, or a number not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; its metadata name it")
    if (found := sha256_of(path)) != sha256:
        named = f"SHA-256 {sha256[:12]}…" if sha256 else "none"
        raise UserError(f"{path}: has SHA-256 {found[:12]}…, its metadata name {named}: not the run's weights")
    tensors = read_tensors(path, "pretrain")
    check_finite({name: tensor for name, tensor in tensors.items() if name not in may_lack}, str(path))
    return tensors


def check_finite(tensors: dict[str, Tensor], source: str) -> None:
    """Check that no tensor holds NaN or infinity.

    Raises:
        UserError: names the first tensor that has one.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{source}: tensor {name} has numbers that are not finite; expected the weights of a run")
