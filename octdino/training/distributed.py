"""Distributed training: several processes train one network on one batch. One process communicates nothing.

Each process passes its own slice of a batch through the backbone. The features are then gathered, and every process
computes the loss of the whole batch: heads, center, queue and negatives are those of one process, with nothing to
synchronize. Each process backpropagates through the backbone for its own slice only, and gradients are averaged.
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
from octdino.training.launcher import processes

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)  # of waiting for another process, which may be evaluating or saving


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT name, as torchrun sets them.

    Raises:
        UserError: this machine has GPUs, but fewer than processes.
    """
    if processes() == 1 or dist.is_initialized():
        yield
        return
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if gpus:
        if local >= gpus:
            raise UserError(f"--processes: more than the {gpus} GPU(s) of this machine; expected one GPU per process")
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
    if not is_rank0():
        logging.getLogger("octdino").setLevel(logging.ERROR)  # rank 0 logs
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_rank0() -> bool:
    """Return whether this process is the one that writes files and logs."""
    return rank() == 0


def shared_batch(batch_size: int, count: int) -> int:
    """Return the batch size: `batch_size`, or with fewer than that many rows the largest multiple of the processes."""
    return batch_size if batch_size <= count else count - count % world_size()


def local_slice(count: int) -> slice:
    """Return this process's slice of `count` rows; every process has equally many.

    Raises:
        UserError: `count` is not a multiple of the number of processes.
    """
    share, rest = divmod(count, world_size())
    if rest or not share:
        raise UserError(f"batch_size: {count} scans per step; expected a multiple of the {world_size()} processes")
    return slice(rank() * share, (rank() + 1) * share)


def all_gather(x: Tensor, dim: int = 0) -> Tensor:
    """Concatenate the tensors of all processes, of equal shape, along `dim`; differentiable.

    Every process must compute the same loss from the result. Each gets the gradient of its own part, times the
    number of processes, by which `average_gradients` divides.
    """
    if world_size() == 1:
        return x
    whole: Tensor = _AllGather.apply(x, dim)
    return whole


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.count = dim, x.shape[dim]
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        local = gradients[0].narrow(ctx.dim, rank() * ctx.count, ctx.count)
        return local * world_size(), None


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over all processes, bit-identical in all of them."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / world_size()
    dist.all_reduce(flat)
    pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)])


def all_true(flag: Tensor) -> Tensor:
    """Return whether `flag` (bool []) is true in every process, as bool [] on its device, without waiting for it."""
    if world_size() == 1:
        return flag
    everywhere = flag.int()
    dist.all_reduce(everywhere, dist.ReduceOp.MIN)
    return everywhere.bool()


def any_rank(flag: bool) -> bool:
    """Return whether `flag` is true in any process; does not wait for the device."""
    if world_size() == 1:
        return flag
    anywhere = torch.tensor(int(flag))
    dist.all_reduce(anywhere, dist.ReduceOp.MAX)
    return bool(anywhere)


def broadcast_from_rank0(make: Callable[[], T]) -> T:
    """Call `make` in rank 0 only, and return its result (tensors and plain values) in all processes.

    With several processes, tensors are on the CPU.
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
    received: T = torch.load(io.BytesIO(payload.numpy().tobytes()), map_location="cpu", weights_only=True)
    return received


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum over all processes; differentiable, gradients are summed as well."""
    summed: Tensor = _AllReduceSum.apply(x)
    return summed


class _AllReduceSum(torch.autograd.Function):
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
