"""Optimizers and their steps: parameter groups, learning rate and weight decay per step, skipped steps, EMA teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return two parameter groups: matrices and kernels with weight decay; biases, norms and other vectors without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": False, "weight_decay": 0.0},
    ]


def layer_decay_groups(backbone: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups with a learning rate that falls from the last block to the stem.

    `lr_scale` of block i of n, counted from 1, is decay ** (n + 1 - i), and that of the stem decay ** (n + 1): the
    classifier, which is no part of the backbone, has 1. timm's own grouping of the model's layers decides what a block
    is; a last norm belongs to the last block. Weight decay as in `parameter_groups`: none
    for vectors.

    Source: layer-wise learning-rate decay, Bao et al. 2022 (BEiT), https://arxiv.org/abs/2106.08254, appendix.
    """
    import timm.optim  # optimizers of other parameters do without timm

    groups = timm.optim.param_groups_layer_decay(backbone, weight_decay=1.0, layer_decay=decay)
    return [
        {
            "params": group["params"],
            "decays": group["weight_decay"] > 0,
            "weight_decay": 0.0,
            "lr_scale": group["lr_scale"] * decay,
        }
        for group in groups
    ]


def set_schedule(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Set this step's learning rate, times a group's `lr_scale`, and the weight decay of groups that have one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        if group["decays"]:
            group["weight_decay"] = weight_decay


def make_optimizer(
    kind: str, groups: list[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """Return a fused adamw with `betas`, or sgd with momentum 0.9, with learning rate 0 until `set_schedule`."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=True)
    for group in optimizer.param_groups:  # after a skipped first step the kernel's own buffer is uninitialized
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def step_if(optimizer: torch.optim.Optimizer, taken: Tensor) -> None:
    """Step unless `taken` (bool [], on the device) is false; the fused kernel reads it, so the host does not wait."""
    optimizer.found_inf = (~taken).float()  # type: ignore[attr-defined]  # as GradScaler does for fused optimizers
    with _contiguous(optimizer):
        optimizer.step()


@contextmanager
def _contiguous(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let a step on a CPU see kernels in channels last as contiguous [N, H, W, C]: the same numbers in the same memory.

    torch's fused CPU step copies each tensor that is not contiguous, which takes as long as the step itself.
    """
    kernels = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.device.type == "cpu" and parameter.grad is not None
        if parameter.is_contiguous(memory_format=torch.channels_last) and not parameter.is_contiguous()
    ]

    def permute(*dims: int) -> None:
        for parameter in kernels:
            for tensor in (parameter, parameter.grad, *optimizer.state[parameter].values()):
                if tensor.ndim == 4:
                    tensor.data = tensor.data.permute(dims)

    permute(0, 2, 3, 1)
    try:
        yield
    finally:
        permute(0, 3, 1, 2)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float, taken: Tensor) -> None:
    """Update the EMA teacher: momentum * teacher + (1 - momentum) * student, for parameters; buffers are unchanged.

    A no-op where `taken` (bool [], on the device) is false.
    """
    average_(list(teacher.parameters()), list(student.parameters()), taken * (1 - momentum))


def average_(averages: list[Tensor], current: list[Tensor], weight: Tensor, foreach: bool | None = None) -> None:
    """Move each average by `weight` (float32 [], on the device) times its distance to the current value, in place.

    Args:
        averages, current: lists of tensors of equal shapes.
        foreach: as in torch's optimizers: kernels over all tensors at once, three of them, as a GPU is slow at many
            small launches; otherwise one pass per tensor, a third of the time on a CPU. None: except on CPUs.
    """
    if weight.device.type != "cpu" if foreach is None else foreach:
        changes = torch._foreach_sub(current, averages)
        torch._foreach_mul_(changes, weight)
        torch._foreach_add_(averages, changes)
    else:
        for average, value in zip(averages, current, strict=True):
            average.lerp_(value, weight)
