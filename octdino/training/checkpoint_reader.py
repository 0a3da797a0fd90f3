"""What a checkpoint holds, read without running anything in it, and whether it fits the run that resumes from it."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What an optimizer keeps of each parameter that it has stepped.
OPTIMIZER_STATE = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.SGD: {"momentum_buffer"}}


class CheckpointError(Exception):
    """A checkpoint that cannot be resumed from: the reason. The run takes an earlier one, or starts again."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: damaged, compressed, not a checkpoint, or one that needs code to be read.
    """
    if not path.is_file():
        raise CheckpointError("it is no file")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise CheckpointError("its parts are compressed, which torch.save never does")
            if archive.testzip() is not None:  # each part has the checksum that was written with it
                raise CheckpointError("it is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the zip reader and the unpickler raise many kinds at bytes that are no checkpoint
        raise CheckpointError(f"it is no checkpoint: {(str(error) or type(error).__name__).splitlines()[0]}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"it holds {type(state).__name__}, expected a dict")
    return state


def check_form(found: Any, expected: Any, where: str) -> None:
    """Check that two nested values have the same keys, lengths, shapes and types; numbers may differ.

    Raises:
        CheckpointError: names the first place where they differ.
    """
    if isinstance(expected, Tensor):
        own = f"{expected.dtype} {list(expected.shape)}"
        if not isinstance(found, Tensor) or found.layout != torch.strided:
            raise CheckpointError(f"{where} is {type(found).__name__}, expected {own}")
        if (found.dtype, found.shape) != (expected.dtype, expected.shape):
            raise CheckpointError(f"{where} is {found.dtype} {list(found.shape)}, expected {own}")
    elif isinstance(expected, int | float) and not isinstance(expected, bool):
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise CheckpointError(f"{where} is {type(found).__name__}, expected a number")
    elif type(found) is not type(expected) and not (isinstance(found, dict) and isinstance(expected, dict)):
        raise CheckpointError(f"{where} is {type(found).__name__}, expected {type(expected).__name__}")
    elif isinstance(expected, dict):
        if odd := sorted(map(str, found.keys() ^ expected.keys())):
            raise CheckpointError(f"{where}: {odd[0]} is in one of checkpoint and run only")
        for key, value in expected.items():
            check_form(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        if len(found) != len(expected):
            raise CheckpointError(f"{where} has {len(found)} entries, expected {len(expected)}")
        for index, value in enumerate(expected):
            check_form(found[index], value, f"{where}.{index}")


def check_optimizer(found: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check that `found` is a state that `optimizer` can load.

    Raises:
        CheckpointError: other groups or parameters, or other tensors kept of one.
    """
    own = optimizer.state_dict()
    if not isinstance(found, dict) or found.keys() != {"state", "param_groups"} or not isinstance(found["state"], dict):
        raise CheckpointError("optimizer is no optimizer's state")
    check_form(found["param_groups"], own["param_groups"], "optimizer.param_groups")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = OPTIMIZER_STATE[type(optimizer)]
    for index, entry in found["state"].items():
        where = f"optimizer.state.{index}"
        if index not in range(len(parameters)) or not isinstance(entry, dict) or entry.keys() != kept:
            raise CheckpointError(f"{where} is not what {type(optimizer).__name__} keeps of a parameter")
        for key, value in entry.items():
            check_form(value, torch.zeros(()) if key == "step" else parameters[index], f"{where}.{key}")
