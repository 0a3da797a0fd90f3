"""Interface of a pretraining method: views, networks, loss, and what is done after each step. The trainer uses no more.

A step has two parts, so that the loss is that of the whole batch even if the batch is too large for the device:

- `encode_teacher` and `encode` pass images through backbones, one chunk of the batch at a time; the features of all
  chunks and processes are concatenated;
- `loss` passes the concatenated features of the whole batch through the heads.
"""

import math
from abc import ABC, abstractmethod
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
    """Views, random samples and targets of the images of a step.

    Attributes:
        views: float32 [V, B, C, S, S] per kind of view, in the order of `Method.views`; with several processes, of this
            process's slice of the batch only.
        sampled: what `Method.sample` returned, each [V, B, ...].
        targets: int64 [B, T], rows of `Method.targets`.
        progress: finished share of the run, 0 to 1.
    """

    views: list[Tensor]
    sampled: Features
    targets: Tensor
    progress: float

    def local(self) -> "Batch":
        """Return the batch with samples and targets of this process's images only."""
        mine = local_slice(len(self.targets))
        sampled = {name: value[:, mine] for name, value in self.sampled.items()}
        return replace(self, sampled=sampled, targets=self.targets[mine])

    def chunks(self, count: int) -> Iterator["Batch"]:
        """Yield this process's images in `count` chunks."""
        batch = self.local()
        size = math.ceil(len(batch.targets) / count)
        for begin in range(0, len(batch.targets), size):
            chunk = slice(begin, begin + size)
            yield replace(
                self,
                views=[view[:, chunk] for view in batch.views],
                sampled={name: value[:, chunk] for name, value in batch.sampled.items()},
                targets=batch.targets[chunk],
            )


class Method(nn.Module, ABC):
    """A method owns its networks; the trainer owns data, optimizer and schedules.

    Buffers and parameters are the whole state of a method, which a checkpoint contains. All randomness is torch's
    global one (seeded for every step) or that of `sample`'s generator.

    Args (of every subclass):
        settings: the method's settings class, resolved for the cohort's size.
        make_backbone: returns a new backbone [B, C, S, S] -> [B, D]; the weights of two calls are equal only if the run
            has initial weights from a file.
        dim: D.
    """

    def __init__(self, settings: Any, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__()
        self.settings = settings

    @property
    @abstractmethod
    def exported(self) -> nn.Module:
        """The backbone that is written to backbone.safetensors."""

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The networks that the optimizer updates."""

    def views(self, augment: AugmentSettings) -> list[View]:
        """Return the kinds of views: by default two large views per image."""
        return [View(2, augment.global_size, augment.global_scale)]

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        """Return integers per scan for the loss (groups, clinical values), int64 [N, T]; none by default."""
        return torch.zeros(len(manifest), 0, dtype=torch.int64)

    def sample(self, batch: int, generator: torch.Generator) -> Features:
        """Sample random choices for a batch beyond its views (masks, orders), each [V, batch, ...].

        They are on the host where `encode` or `loss` read them, which then does not wait for the device.

        Args:
            generator: on the host, seeded for the step: the choices are the same on all devices.
        """
        return {}

    def hidden_patches(self, sampled: Features) -> Tensor | None:
        """Return the patches of large views that the trained backbone does not see, bool [V, B, rows, columns]."""
        return None

    def encode_teacher(self, batch: Batch) -> Features:
        """Return features of the teacher's backbone; called without gradient."""
        return {}

    @abstractmethod
    def encode(self, batch: Batch) -> Features:
        """Return features of the trained backbone, with gradient."""

    @abstractmethod
    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the whole batch from the features of all its images, and scalars to log."""

    def before_step(self, progress: float) -> None:
        """Called between the backward pass and the optimizer's step."""

    def after_step(self, progress: float, taken: Tensor) -> None:
        """Called after the optimizer's step; a no-op if `taken` (bool [], on the device) is false.

        The trainer restores the buffers.
        """

    def end_epoch(self) -> dict[str, float]:
        """Return scalars over the epoch, and reset their accumulators."""
        return {}

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return pictures of scans by title, each [N, C, S, S], standardized, NaN where blank; none by default.

        Called after training, in eval mode and without gradient.

        Args:
            images: [N, C, S, S], standardized, of the size of large views.
            generator: of all random choices, on the host.
        """
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
        """Return embeddings [2 * B, out]; rows b and B + b are views of scan b. Batch norms see both views."""
        embeddings: Tensor = self.network["head"](encoded["views"].flatten(0, 1))
        return embeddings


def encode_views(backbone: nn.Module, view: Tensor) -> Tensor:
    """Return pooled features [V, B, D] of views [V, B, C, S, S], in one forward."""
    images = view.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    features: Tensor = backbone(images)
    return features.view(*view.shape[:2], -1)


Negatives = Literal["all", "other_eyes", "other_patients"]


def scan_groups(manifest: pd.DataFrame, negatives: Negatives) -> Tensor:
    """Return the group of each scan, int64 [N]: scans of one group are not negatives of each other.

    Args:
        negatives: all: every scan is its own group; other_eyes, other_patients: scans of one eye, of one patient, are
            one group, because slices of one volume are near-copies. A scan of unknown eye or patient is its own group.
    """
    alone = torch.arange(len(manifest))
    if negatives == "all":
        return alone
    named = manifest["eye" if negatives == "other_eyes" else "patient"].replace("", pd.NA)
    codes = torch.from_numpy(pd.factorize(named)[0].astype("int64"))  # -1 where unknown
    return torch.where(codes >= 0, codes, len(manifest) + alone)
