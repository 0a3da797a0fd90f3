"""Loss scaling for training in float16."""

from collections.abc import Iterable

import torch
from torch import Tensor

FIRST_SCALE, GROWTH_INTERVAL = 2.0**16, 2000  # the values of torch.amp.GradScaler


class LossScale:
    """Scale of the loss, so that small gradients do not become zero in float16; adapts without waiting for the device.

    The loss is multiplied by the scale and the gradients are divided by it. Gradients that overflow halve the scale,
    and their step is not taken; `GROWTH_INTERVAL` steps without an overflow double it. In other precisions the scale
    is 1 and stays so.

    Source: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, sec. 3.2; torch.amp.GradScaler does the same,
    but without a lower bound.

    Args:
        device: of the loss.
        precision: from `resolve_precision`.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.enabled = precision == "float16"
        self._scale = torch.full((), FIRST_SCALE if self.enabled else 1.0, device=device)
        self._steps = torch.zeros((), dtype=torch.int64, device=device)  # without an overflow

    def __call__(self, loss: Tensor) -> Tensor:
        """Return the loss [] times the scale."""
        return loss * self._scale if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients of parameters by the scale, in place."""
        if self.enabled:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / self._scale)

    def update(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Adapt the scale to a step; return whether its gradients overflowed and a smaller scale may help, bool [].

        Args:
            loss: of the step, [].
            norm: of its gradients, [], after `unscale`.
        """
        overflow = loss.isfinite() & ~norm.isfinite() & (self._scale > 1)
        if self.enabled:
            self._steps = torch.where(norm.isfinite(), self._steps + 1, 0)
            grows = self._steps >= GROWTH_INTERVAL
            self._scale = self._scale * torch.where(overflow, 0.5, torch.where(grows, 2.0, 1.0))
            self._steps = torch.where(grows, 0, self._steps)
        return overflow

    def columns(self) -> dict[str, float]:
        """Return the scale as a column of history.csv; waits for the device. Empty if the scale is always 1."""
        return {"loss_scale": self._scale.item()} if self.enabled else {}

    def position(self) -> dict[str, Tensor]:
        """Return for a checkpoint the scale and its steps without an overflow; empty if the scale is always 1."""
        return {"scale": self._scale, "steps": self._steps} if self.enabled else {}

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Restore what `position` returned; without effect if one of the two runs is not in float16."""
        if self.enabled and saved:
            self._scale, self._steps = saved["scale"].to(self._scale), saved["steps"].to(self._steps)
