"""One batch backwards, whole or in parts; and what happens when it brings no finite number."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from octdino.pretrain.methods.method import Batch, Features, Method
from octdino.training.distributed import all_gather, average_gradients, rank
from octdino.training.random_seeds import seed_of
from octdino.training.throughput import Stopwatch


def backward(
    method: Method, batch: Batch, parts: int, seed: int, autocast: torch.autocast, clock: Stopwatch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of the whole batch's loss, added to the trained networks; the loss and scalars, detached.

    In several parts the backbone sees a part at a time, and the loss is still that of the joined batch, which no sum
    of the parts' own losses is (contrastive negatives, Sinkhorn-Knopp, batch norm in heads). So there are two passes
    (GradCache; Gao et al. 2021, https://arxiv.org/abs/2101.06983, sec. 3.2): features without gradient, the loss and
    its gradient by the features, then each part again with gradient. Batch norm in a backbone sees a part's statistics.

    Several processes have a part each, and average the gradients (`octdino.training.distributed`).

    Args:
        parts: of this process's images.
        seed: of dropout and drop path; each part and process has its own, the same in both passes.
        clock: is told what goes forward and what backward.
    """
    pieces = list(batch.parts(parts))
    seeds = [seed_of(seed, rank(), part) for part in range(len(pieces))]
    with autocast, clock.part("forward"):
        taught = _cat([_teach(method, piece) for piece in pieces])
        with torch.set_grad_enabled(parts == 1):
            encoded = _cat([_encode(method, *each) for each in zip(pieces, seeds, strict=True)])
        if parts > 1:
            encoded = {name: value.requires_grad_() for name, value in encoded.items()}
        loss, scalars = method.loss(_of_all(encoded), _of_all(taught), batch)
    with clock.part("backward"):
        torch.autograd.backward(loss)
    if parts > 1:
        _again(method, pieces, seeds, encoded, autocast, clock)
    with clock.part("backward"):
        average_gradients(method.trained)
    return loss.detach(), scalars


def _again(
    method: Method,
    pieces: list[Batch],
    seeds: list[int],
    features: Features,
    autocast: torch.autocast,
    clock: Stopwatch,
) -> None:
    """Each part once more, with gradient, and the gradient of its features through it."""
    running = [(buffer, buffer.clone()) for buffer in method.trained.buffers()]  # the first pass has moved them
    gradients = {name: value.grad for name, value in features.items() if value.grad is not None}
    begin = 0
    for piece, seed in zip(pieces, seeds, strict=True):
        with autocast, clock.part("forward"):
            encoded = _encode(method, piece, seed)
        end = begin + len(piece.targets)
        with clock.part("backward"):
            torch.autograd.backward(
                [encoded[name] for name in gradients], [g[:, begin:end] for g in gradients.values()]
            )
        begin = end
    with torch.no_grad():
        for buffer, value in running:
            buffer.copy_(value)


@torch.no_grad()
def _teach(method: Method, batch: Batch) -> Features:
    return method.teach(batch)


def _encode(method: Method, batch: Batch, seed: int) -> Features:
    torch.manual_seed(seed)
    return method.encode(batch)


def _cat(features: list[Features]) -> Features:
    return {name: torch.cat([each[name] for each in features], dim=1) for name in features[0]}


def _of_all(features: Features) -> Features:
    return {name: all_gather(value, 1) for name, value in features.items()}


class Guard:
    """Takes back a step whose loss or gradient is not finite: buffers (running statistics, centre, queue) as before it.

    Parameters need no copy: the optimiser and the teacher see to themselves.
    """

    def __init__(self, method: nn.Module) -> None:
        self._buffers = [buffer for buffer in method.buffers() if buffer.numel()]
        self._before = [buffer.clone() for buffer in self._buffers]

    def remember(self) -> None:
        """Before the step."""
        torch._foreach_copy_(self._before, self._buffers)

    @torch.no_grad()
    def take_back_unless(self, taken: Tensor) -> None:
        """After the step; `taken`: bool [], on the device, so that nobody waits for it."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(taken, buffer, before))


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Length of all gradients together; not finite if any of them is not."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
