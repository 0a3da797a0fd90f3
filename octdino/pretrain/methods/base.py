"""What a pretraining method is: views wanted, loss, and what happens after each step. The loop knows no more."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from octdino.augment import View
from octdino.config import AugmentSettings
from octdino.models import projection_head


class Method(nn.Module):
    """A method owns its networks; the loop owns data, optimiser, schedules and time.

    Buffers and parameters are the whole state of a method: they are saved and restored, nothing else is.

    Args (of every subclass):
        settings: the method's settings class.
        make_backbone: returns a new backbone [B, C, S, S] -> [B, D], initialised from the global random state.
        dim: D.
    """

    def __init__(self, settings: Any, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__()
        self.settings = settings

    @property
    def exported(self) -> nn.Module:
        """The backbone that users get."""
        raise NotImplementedError

    @property
    def trained(self) -> nn.Module:
        """The networks that the optimiser steps."""
        raise NotImplementedError

    def views(self, augment: AugmentSettings) -> list[View]:
        """Two large views an image; a method that wants others says so."""
        return [View(2, augment.global_size, augment.global_scale)]

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        """What the loss needs to know of each scan, int64 [N, T]; nothing by default."""
        return torch.zeros(len(manifest), 0, dtype=torch.int64)

    def loss(self, views: list[Tensor], targets: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch, and scalars to log.

        Args:
            views: one [count * B, C, size, size] a kind of view.
            targets: int64 [B, T].
            progress: share of the run that is done, 0 to 1.
        """
        raise NotImplementedError

    def before_step(self, progress: float) -> None:
        """Between backward and the optimiser's step."""

    def after_step(self, progress: float) -> None:
        """After the optimiser's step."""

    def end_epoch(self) -> dict[str, float]:
        """Scalars over the epoch; resets what it accumulated."""
        return {}


class Contrastive(Method):
    """One backbone and one projection head on two large views; a subclass says which pairs attract each other.

    Settings need `hidden_dim` and `out_dim`.
    """

    def __init__(self, settings: Any, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        head = projection_head([dim, settings.hidden_dim, settings.out_dim], norm=True)
        self.network = nn.ModuleDict({"backbone": make_backbone(), "head": head})

    @property
    def exported(self) -> nn.Module:
        return self.network["backbone"]

    @property
    def trained(self) -> nn.Module:
        return self.network

    def embed(self, views: list[Tensor]) -> Tensor:
        """[2 * B, out_dim]; rows b and B + b are two views of scan b."""
        embeddings: Tensor = self.network["head"](self.network["backbone"](views[0]))
        return embeddings
