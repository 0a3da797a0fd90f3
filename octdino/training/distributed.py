"""Several processes that train one network on one batch. With one process nothing is communicated.

Each process takes its own rows of a batch through the backbone. The features are then joined, and every process goes
on with the whole batch: heads, centre, queue, negatives and loss are those of one process, with nothing to synchronise.
The gradient of its own rows goes back through its own backbone, and gradients are averaged.
"""

import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from octdino.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)  # of a process that waits for another one, which may be watching or saving


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT name, as torchrun sets them.

    Raises:
        UserError: there are GPUs here, but fewer than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if gpus:
        if local >= gpus:
            raise UserError(f"--processes: more than the {gpus} GPU(s) of this machine; expected one GPU a process")
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    if not is_rank0():
        logging.getLogger("octdino").setLevel(logging.ERROR)  # the first one says it
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_rank0() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return rank() == 0


def shared_batch(wanted: int, count: int) -> int:
    """The size of a batch of `count` rows at most: as wanted, else as large as all processes can share."""
    return wanted if wanted <= count else count - count % world_size()


def local_slice(count: int) -> slice:
    """Which of `count` rows are this process's; every process has as many.

    Raises:
        UserError: they cannot be shared out evenly.
    """
    share, rest = divmod(count, world_size())
    if rest or not share:
        raise UserError(f"batch_size: {count} scans a step; expected a multiple of the {world_size()} processes")
    return slice(rank() * share, (rank() + 1) * share)


def all_gather(x: Tensor, dim: int = 0) -> Tensor:
    """The parts of all processes, equally large, one after the other along `dim`; gradients go back to one's own.

    Every process must compute the same loss from it.
    """
    if world_size() == 1:
        return x
    whole: Tensor = _Joined.apply(x, dim)
    return whole


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.count = dim, x.shape[dim]
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        mine = gradients[0].narrow(ctx.dim, rank() * ctx.count, ctx.count)
        return mine * world_size(), None  # `average_gradients` divides by it


def average_gradients(module: nn.Module) -> None:
    """Every gradient is then the mean over all processes: bit for bit the same everywhere."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / world_size()
    dist.all_reduce(flat)
    pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)])


def all_true(flag: Tensor) -> Tensor:
    """bool []: whether it is true on every process; on its device, without waiting for it."""
    if world_size() == 1:
        return flag
    everywhere = flag.int()
    dist.all_reduce(everywhere, dist.ReduceOp.MIN)
    return everywhere.bool()


def any_rank(flag: bool) -> bool:
    """Whether it is true on any process. The device is not waited for."""
    if world_size() == 1:
        return flag
    anywhere = torch.tensor(int(flag))
    dist.all_reduce(anywhere, dist.ReduceOp.MAX)
    return bool(anywhere)


def broadcast_from_rank0(make: Callable[[], T]) -> T:
    """What the first process makes of tensors and plain values, for all; the others do not call `make`.

    Tensors come on the CPU.
    """
    if world_size() == 1:
        return make()
    buffer = io.BytesIO()
    if is_rank0():
        torch.save(make(), buffer)
    size = torch.tensor(buffer.tell())
    dist.broadcast(size, 0)
    payload = torch.frombuffer(bytearray(buffer.getvalue() or int(size)), dtype=torch.uint8)
    dist.broadcast(payload, 0)
    made: T = torch.load(io.BytesIO(payload.numpy().tobytes()), map_location="cpu", weights_only=True)
    return made


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum over all processes, whose gradients are summed as well."""
    summed: Tensor = _Summed.apply(x)
    return summed


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return _all_sum(x)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _all_sum(gradients[0])


def _all_sum(x: Tensor) -> Tensor:
    x = x.clone()
    dist.all_reduce(x)
    return x
