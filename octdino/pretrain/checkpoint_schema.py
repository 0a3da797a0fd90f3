"""Whether a checkpoint fits the run that is to resume from it; asked before anything of the run is touched."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from octdino.training.checkpoint_reader import CheckpointError, check_form, check_optimizer

if TYPE_CHECKING:
    from octdino.pretrain.trainer import Run


class Position(BaseModel):
    """The plain part of what `Run.position` returns."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    method: dict[str, Tensor]
    optimizer: dict[str, Any]
    step: NonNegativeInt
    sums: dict[str, Tensor]
    history: list[dict[str, float]]
    skipped: list[tuple[int, list[str]]]
    lengths: list[int]
    best: dict[str, Any]
    epochs: PositiveInt
    precision: Literal["float32", "bfloat16"]


def check_position(saved: dict[str, Any], run: "Run") -> None:
    """Check that `run` can be restored from `saved`.

    Raises:
        CheckpointError: a key is missing or has another type, a tensor another shape, or the step is none of this run.
    """
    try:
        position = Position.model_validate(saved)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    check_form(saved["method"], run.method.state_dict(), "method")
    check_optimizer(saved["optimizer"], run.optimizer)
    if position.step > run.total or len(position.history) != position.step // run.steps:
        raise CheckpointError(f"step {position.step} after {len(position.history)} epochs is none of this run's steps")
    if [row.get("epoch") for row in position.history] != list(range(1, len(position.history) + 1)):
        raise CheckpointError("history: its rows are not those of the epochs")
    if odd := [name for name, value in position.sums.items() if value.numel() != 1]:
        raise CheckpointError(f"sums.{odd[0]} is no single number")
    if position.best:
        wanted = {"score": 0.0, "epoch": 0, "weights": run.method.exported.state_dict()}
        check_form(position.best, wanted, "best")
