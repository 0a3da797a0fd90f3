"""Gradient of one step: backward pass, in one piece or in GradCache chunks, and rollback of non-finite steps."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from octdino.pretrain.methods.method import Batch, Features, Method
from octdino.training.distributed import all_gather, average_gradients, rank
from octdino.training.loss_scale import LossScale
from octdino.training.random_seeds import seed_of
from octdino.training.throughput import StepTimer


def backward(
    method: Method,
    batch: Batch,
    chunks: int,
    seed: int,
    autocast: torch.autocast,
    loss_scale: LossScale,
    timer: StepTimer,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add the gradients of the whole batch's loss, scaled, to the trained networks; return the loss and scalars.

    With several chunks the backbone sees one chunk at a time, and the loss is still that of the whole batch, which no
    sum of the chunks' own losses is (contrastive negatives, Sinkhorn-Knopp, batch norm in heads). So there are two
    passes (GradCache; Gao et al. 2021, https://arxiv.org/abs/2101.06983, sec. 3.2): features without gradient, the loss
    and its gradient by the features, then each chunk again with gradient. Batch norm in a backbone sees the statistics
    of one chunk.

    Each of several processes has its own slice of the batch; gradients are averaged (`octdino.training.distributed`).

    Args:
        chunks: that this process's images are divided into.
        seed: of dropout and drop path; each chunk and process has its own, the same in both passes.
        timer: times the parts forward and backward.
    """
    pieces = list(batch.chunks(chunks))
    seeds = [seed_of(seed, rank(), index) for index in range(len(pieces))]
    with autocast, timer.part("forward"):
        teacher_features = _cat([_encode_teacher(method, piece) for piece in pieces])
        with torch.set_grad_enabled(chunks == 1):
            features = _cat([_encode(method, *each) for each in zip(pieces, seeds, strict=True)])
        if chunks > 1:
            features = {name: value.requires_grad_() for name, value in features.items()}
        loss, scalars = method.loss(_gather(features), _gather(teacher_features), batch)
    with timer.part("backward"):
        torch.autograd.backward(loss_scale(loss))
    if chunks > 1:
        _second_pass(method, pieces, seeds, features, autocast, timer)
    with timer.part("backward"):
        average_gradients(method.trained)
    return loss.detach(), scalars


def _second_pass(
    method: Method,
    pieces: list[Batch],
    seeds: list[int],
    features: Features,
    autocast: torch.autocast,
    timer: StepTimer,
) -> None:
    """Pass each chunk through the backbone again, with gradient, and the gradient of its features back through it."""
    buffers = [(buffer, buffer.clone()) for buffer in method.trained.buffers()]  # the first pass has updated them
    gradients = {name: value.grad for name, value in features.items() if value.grad is not None}
    begin = 0
    for piece, seed in zip(pieces, seeds, strict=True):
        with autocast, timer.part("forward"):
            encoded = _encode(method, piece, seed)
        end = begin + len(piece.targets)
        with timer.part("backward"):
            torch.autograd.backward(
                [encoded[name] for name in gradients], [g[:, begin:end] for g in gradients.values()]
            )
        begin = end
    with torch.no_grad():
        for buffer, value in buffers:
            buffer.copy_(value)


@torch.no_grad()
def _encode_teacher(method: Method, batch: Batch) -> Features:
    return method.encode_teacher(batch)


def _encode(method: Method, batch: Batch, seed: int) -> Features:
    torch.manual_seed(seed)
    return method.encode(batch)


def _cat(features: list[Features]) -> Features:
    return {name: torch.cat([each[name] for each in features], dim=1) for name in features[0]}


def _gather(features: Features) -> Features:
    return {name: all_gather(value, 1) for name, value in features.items()}


class StepRollback:
    """Rollback of a step whose loss or gradient is not finite: restores buffers (running statistics, center, queue).

    Parameters need no copy: `step_if` and `ema_update` leave them unchanged in such a step.
    """

    def __init__(self, method: nn.Module) -> None:
        self._buffers = [buffer for buffer in method.buffers() if buffer.numel()]
        self._saved = [buffer.clone() for buffer in self._buffers]

    def save(self) -> None:
        """Copy all buffers, before the step."""
        if self._buffers:  # a method need not have any
            torch._foreach_copy_(self._saved, self._buffers)

    @torch.no_grad()
    def undo_unless(self, taken: Tensor) -> None:
        """Restore all buffers after the step where `taken` (bool [], on the device) is false; does not wait for it."""
        for buffer, saved in zip(self._buffers, self._saved, strict=True):
            buffer.copy_(torch.where(taken, buffer, saved))


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the norm of all gradients together; not finite if any of them is not."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
