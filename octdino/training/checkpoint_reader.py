"""Read a checkpoint without executing anything in it, and check that it fits the run that resumes from it."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Keys of the state that an optimizer has per parameter.
OPTIMIZER_STATE = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.SGD: {"momentum_buffer"}}


class CheckpointError(Exception):
    """Why a checkpoint cannot be resumed from. The run takes an earlier one, or starts again."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, tensors on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: damaged, compressed, not a checkpoint, or one that needs code to be read.
    """
    if not path.is_file():
        raise CheckpointError("not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise CheckpointError("its parts are compressed, which torch.save does not do")
            if archive.testzip() is not None:  # compares each part with its checksum
                raise CheckpointError("it is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the zip reader and the unpickler raise errors of many types
        raise CheckpointError(f"not a checkpoint: {(str(error) or type(error).__name__).splitlines()[0]}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"it contains {type(state).__name__}, expected a dict")
    return state


def check_form(saved: Any, expected: Any, where: str) -> None:
    """Check that two nested values have the same keys, lengths, shapes and types; values of numbers may differ.

    Raises:
        CheckpointError: names the first difference.
    """
    if isinstance(expected, Tensor):
        form = f"{expected.dtype} {list(expected.shape)}"
        if not isinstance(saved, Tensor) or saved.layout != torch.strided:
            raise CheckpointError(f"{where} is {type(saved).__name__}, expected {form}")
        if (saved.dtype, saved.shape) != (expected.dtype, expected.shape):
            raise CheckpointError(f"{where} is {saved.dtype} {list(saved.shape)}, expected {form}")
    elif isinstance(expected, int | float) and not isinstance(expected, bool):
        if not isinstance(saved, int | float) or isinstance(saved, bool):
            raise CheckpointError(f"{where} is {type(saved).__name__}, expected a number")
    elif type(saved) is not type(expected) and not (isinstance(saved, dict) and isinstance(expected, dict)):
        raise CheckpointError(f"{where} is {type(saved).__name__}, expected {type(expected).__name__}")
    elif isinstance(expected, dict):
        if unmatched := sorted(map(str, saved.keys() ^ expected.keys())):
            raise CheckpointError(f"{where}: {unmatched[0]} is only in one of checkpoint and run")
        for key, value in expected.items():
            check_form(saved[key], value, f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        if len(saved) != len(expected):
            raise CheckpointError(f"{where} has {len(saved)} entries, expected {len(expected)}")
        for index, value in enumerate(expected):
            check_form(saved[index], value, f"{where}.{index}")


def check_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check that `saved` is a state dict that `optimizer` can load.

    Raises:
        CheckpointError: groups, parameters or the tensors per parameter differ.
    """
    expected = optimizer.state_dict()
    if not isinstance(saved, dict) or saved.keys() != {"state", "param_groups"} or not isinstance(saved["state"], dict):
        raise CheckpointError("optimizer is not the state of an optimizer")
    check_form(saved["param_groups"], expected["param_groups"], "optimizer.param_groups")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys = OPTIMIZER_STATE[type(optimizer)]
    for index, entry in saved["state"].items():
        where = f"optimizer.state.{index}"
        if index not in range(len(parameters)) or not isinstance(entry, dict) or entry.keys() != keys:
            raise CheckpointError(f"{where} is not the state that {type(optimizer).__name__} has per parameter")
        for key, value in entry.items():
            check_form(value, torch.zeros(()) if key == "step" else parameters[index], f"{where}.{key}")
