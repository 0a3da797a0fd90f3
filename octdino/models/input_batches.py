"""Batches of scans as a network takes them, without augmentation: standardized and resized."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from octdino.augment import resize, standardize


def input_batches(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    device: torch.device,
    rows: np.ndarray | None = None,
    batch: int = 256,
) -> Iterator[Tensor]:
    """Yield float32 [B, C, size, size] in channels-last layout on `device`.

    Args:
        images: uint8 [N, C, H, W] on the host.
        mean, std: per channel, of pixels in [0, 1].
        size: px, side of the input.
        rows: which images, in this order; None: all.
        batch: images per batch.
    """
    center, spread = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    chosen = torch.arange(len(images)) if rows is None else torch.from_numpy(rows)
    for chunk in torch.split(chosen, batch):
        inputs = resize(standardize(images[chunk].to(device), center, spread), size)
        yield inputs.contiguous(memory_format=torch.channels_last)
