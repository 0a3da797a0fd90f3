"""Checkpoint schema of pretraining: check that a checkpoint fits a run before the run is changed by it."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from octdino.training.checkpoint_reader import CheckpointError, check_form, check_optimizer

if TYPE_CHECKING:
    from octdino.pretrain.trainer import Trainer


class Position(BaseModel):
    """Types of what `Trainer.position` returns."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    method: dict[str, Tensor]
    optimizer: dict[str, Any]
    loss_scale: dict[str, Tensor] = {}  # missing in checkpoints of versions without float16
    step: NonNegativeInt
    sums: dict[str, Tensor]
    history: list[dict[str, float]]
    skipped: list[tuple[int, list[str]]]
    lengths: list[int]
    best: dict[str, Any]
    epochs: PositiveInt
    precision: Literal["float32", "bfloat16", "float16"]


def check_position(saved: dict[str, Any], trainer: "Trainer") -> None:
    """Check that `trainer` can be restored from `saved`.

    Raises:
        CheckpointError: a key is missing or has another type, a tensor another shape, or the step is out of range.
    """
    try:
        position = Position.model_validate(saved)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    check_form(saved["method"], trainer.method.state_dict(), "method")
    check_optimizer(saved["optimizer"], trainer.optimizer)
    if position.loss_scale and trainer.loss_scale.enabled:
        check_form(position.loss_scale, trainer.loss_scale.position(), "loss_scale")
    batches = trainer.batches
    if position.step > batches.total_steps or len(position.history) != position.step // batches.steps_per_epoch:
        raise CheckpointError(
            f"step {position.step} after {len(position.history)} epochs is not a position of this run"
        )
    if [row.get("epoch") for row in position.history] != list(range(1, len(position.history) + 1)):
        raise CheckpointError("history: rows are not numbered by epoch")
    if wrong := [name for name, value in position.sums.items() if value.numel() != 1]:
        raise CheckpointError(f"sums.{wrong[0]} is not a scalar")
    if position.best:
        expected = {"score": 0.0, "epoch": 0, "weights": trainer.method.exported.state_dict()}
        check_form(position.best, expected, "best")
