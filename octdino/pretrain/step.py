"""One batch backwards, whole or in parts; and what happens when it brings no finite number."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from octdino.pretrain.methods.base import Batch, Features, Method
from octdino.pretrain.speed import Stopwatch
from octdino.training import seed_of


def backward(
    method: Method, batch: Batch, parts: int, seed: int, autocast: torch.autocast, clock: Stopwatch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of the whole batch's loss, added to the trained networks; the loss and scalars, detached.

    In several parts the backbone sees a part at a time, and the loss is still that of the joined batch, which no sum
    of the parts' own losses is (contrastive negatives, Sinkhorn-Knopp, batch norm in heads). So there are two passes
    (GradCache; Gao et al. 2021, https://arxiv.org/abs/2101.06983, sec. 3.2): features without gradient, the loss and
    its gradient by the features, then each part again with gradient. Batch norm in a backbone sees a part's statistics.

    Args:
        seed: of dropout and drop path; each part has its own, the same in both passes.
        clock: is told what goes forward and what backward.
    """
    if parts == 1:
        torch.manual_seed(seed)
        with autocast, clock.part("forward"):
            taught = _teach(method, batch)
            loss, scalars = method.loss(method.encode(batch), taught, batch)
        with clock.part("backward"):
            torch.autograd.backward(loss)
        return loss.detach(), scalars
    pieces = list(batch.parts(parts))
    with autocast, clock.part("forward"):
        taught = _joined([_teach(method, piece) for piece in pieces])
        with torch.no_grad():
            features = _joined([_encode(method, piece, seed, part) for part, piece in enumerate(pieces)])
        leaves = {name: value.detach().requires_grad_() for name, value in features.items()}
        loss, scalars = method.loss(leaves, taught, batch)
    with clock.part("backward"):
        torch.autograd.backward(loss)
    running = [(buffer, buffer.clone()) for buffer in method.trained.buffers()]  # the first pass has moved them
    begin = 0
    for part, piece in enumerate(pieces):
        with autocast, clock.part("forward"):
            encoded = _encode(method, piece, seed, part)
        end = begin + piece.views[0].shape[1]
        wanted = [name for name, leaf in leaves.items() if leaf.grad is not None]
        gradients = [_grad(leaves[name])[:, begin:end] for name in wanted]
        with clock.part("backward"):
            torch.autograd.backward([encoded[name] for name in wanted], gradients)
        begin = end
    with torch.no_grad():
        for buffer, value in running:
            buffer.copy_(value)
    return loss.detach(), scalars


@torch.no_grad()
def _teach(method: Method, batch: Batch) -> Features:
    return method.teach(batch)


def _encode(method: Method, batch: Batch, seed: int, part: int) -> Features:
    torch.manual_seed(seed_of(seed, part))
    return method.encode(batch)


def _joined(features: list[Features]) -> Features:
    return {name: torch.cat([each[name] for each in features], dim=1) for name in features[0]}


def _grad(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


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
