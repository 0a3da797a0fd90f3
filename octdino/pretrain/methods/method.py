"""What a pretraining method is: views wanted, networks, loss, and what happens after each step. The loop knows no more.

A step has three parts, so that a batch may be too large for the device and its loss is still that of the whole batch:

- `teach` and `encode` pass images through backbones, any part of the batch at a time, whose results are joined, also
  with those of other processes;
- `loss` takes the joined features of the whole batch through the heads.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from octdino.augment import View
from octdino.config import AugmentSettings
from octdino.training.distributed import local_slice

Features = dict[str, Tensor]  # by name, each [V, B, ...]: the second axis is that of the images


@dataclass(frozen=True)
class Batch:
    """What a step sees of its images.

    Attributes:
        views: float32 [V, B, C, S, S] a kind of view, in the order of `Method.views`; where several processes share
            the batch, of this one's images alone, and only `own` may be encoded.
        drawn: what `Method.draw` drew, each [V, B, ...], on the host.
        targets: int64 [B, T], the rows of `Method.targets`.
        progress: share of the run that is done, 0 to 1.
    """

    views: list[Tensor]
    drawn: Features
    targets: Tensor
    progress: float

    def local(self) -> "Batch":
        """What belongs to this process's images."""
        mine = local_slice(len(self.targets))
        drawn = {name: value[:, mine] for name, value in self.drawn.items()}
        return replace(self, drawn=drawn, targets=self.targets[mine])

    def parts(self, count: int) -> Iterator["Batch"]:
        """This process's images in `count` parts."""
        batch = self.local()
        size = math.ceil(len(batch.targets) / count)
        for begin in range(0, len(batch.targets), size):
            part = slice(begin, begin + size)
            yield replace(
                self,
                views=[view[:, part] for view in batch.views],
                drawn={name: value[:, part] for name, value in batch.drawn.items()},
                targets=batch.targets[part],
            )


class Method(nn.Module):
    """A method owns its networks; the loop owns data, optimiser, schedules and time.

    Buffers and parameters are the whole state of a method: they are saved and restored, nothing else is. All
    randomness is torch's global one (seeded anew for every step) or that of `draw`'s generator.

    Args (of every subclass):
        settings: the method's settings class, resolved for the cohort's size.
        make_backbone: returns a new backbone [B, C, S, S] -> [B, D]; each call starts from the same weights only if
            the run starts from given ones.
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

    def draw(self, batch: int, generator: torch.Generator) -> Features:
        """Random choices for a whole batch of images beyond its views, each [V, batch, ...].

        Made on the host, which may read them without waiting for the device.
        """
        return {}

    def teach(self, batch: Batch) -> Features:
        """Features of the networks that are not trained; called without gradient."""
        return {}

    def encode(self, batch: Batch) -> Features:
        """Features of the trained backbone, with gradient."""
        raise NotImplementedError

    def loss(self, encoded: Features, taught: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the whole batch from its joined features, and scalars to log."""
        raise NotImplementedError

    def before_step(self, progress: float) -> None:
        """Between backward and the optimiser's step."""

    def after_step(self, progress: float, taken: Tensor) -> None:
        """After the optimiser's step; it was none if `taken` (bool [], on the device) is false. Buffers are seen to."""

    def end_epoch(self) -> dict[str, float]:
        """Scalars over the epoch; resets what it accumulated."""
        return {}


class OneNetwork(Method):
    """A method with one backbone and one head, both trained, on two large views. A subclass sets `network`."""

    network: nn.ModuleDict  # "backbone" and "head"

    @property
    def exported(self) -> nn.Module:
        return self.network["backbone"]

    @property
    def trained(self) -> nn.Module:
        return self.network

    def encode(self, batch: Batch) -> Features:
        return {"views": encode_views(self.network["backbone"], batch.views[0])}

    def embed(self, encoded: Features) -> Tensor:
        """[2 * B, out]; rows b and B + b are two views of scan b. The head's batch norms see both views."""
        embeddings: Tensor = self.network["head"](encoded["views"].flatten(0, 1))
        return embeddings


def encode_views(backbone: nn.Module, view: Tensor) -> Tensor:
    """[V, B, C, S, S] to pooled features [V, B, D] in one forward."""
    images = view.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    features: Tensor = backbone(images)
    return features.view(*view.shape[:2], -1)


Apart = Literal["all", "other_eyes", "other_patients"]


def scan_groups(manifest: pd.DataFrame, apart: Apart) -> Tensor:
    """int64 [N]: scans of one group are too alike to be told apart (slices of one volume are near-copies).

    Args:
        apart: all: every scan is a group of its own; other_eyes, other_patients: those of an eye, of a patient, are
            one group. A scan whose eye or patient is unknown is a group of its own.
    """
    alone = torch.arange(len(manifest))
    if apart == "all":
        return alone
    named = manifest["eye" if apart == "other_eyes" else "patient"].replace("", pd.NA)
    codes = torch.from_numpy(pd.factorize(named)[0].astype("int64"))  # -1 where unknown
    return torch.where(codes >= 0, codes, len(manifest) + alone)
