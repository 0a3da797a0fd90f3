"""Near-duplicate scans: copies of each other that were resized, brightened, compressed or mirrored."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from octdino.data.cohort_reader import Cohort

SIDE = 48  # px; small enough to remove compression, large enough to keep vessels and speckle
DETAIL = 7  # px: structure coarser than this is common to all scans of one organ
CHUNK = 2048  # scans per factor of a product
BLOCK = 4096  # scans that are read at a time


@dataclass(frozen=True)
class Pair:
    """Two scans by their rows, their correlation (1: the same), and whether one is mirrored."""

    one: int
    other: int
    similarity: float
    mirrored: bool


def textures(images: Tensor) -> Tensor:
    """Return the fine detail of each scan, of length 1, independent of its brightness and size.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        float32 [N, SIDE, SIDE]; zeros where a scan has no detail.
    """
    found = []
    for part in torch.split(images, 512):
        gray = part.float().mean(1, keepdim=True)
        small = F.interpolate(gray, (SIDE, SIDE), mode="bilinear", antialias=True)
        coarse = F.avg_pool2d(F.pad(small, [DETAIL // 2] * 4, "replicate"), DETAIL, 1)
        detail = small - coarse
        # Each px relative to the contrast around it: else a few bright layers dominate.
        spread = F.avg_pool2d(F.pad(detail**2, [DETAIL // 2] * 4, "replicate"), DETAIL, 1).sqrt()
        found.append((detail / (spread + 1.0))[:, 0])
    joined = torch.cat(found) if found else torch.zeros(0, SIDE, SIDE)
    return F.normalize(joined.flatten(1), dim=1).view(-1, SIDE, SIDE)


def textures_of(cohort: Cohort) -> Tensor:
    """Return `textures` of all scans of a cohort, read in blocks: images of a large one need not fit into memory."""
    rows = np.array_split(np.arange(len(cohort)), max(1, math.ceil(len(cohort) / BLOCK)))
    return torch.cat([textures(torch.from_numpy(cohort.images(block))) for block in rows])


def copies(detail: Tensor, splits: Tensor, similarity: float) -> Iterator[Pair]:
    """Yield pairs of scans in different splits whose textures agree, also after mirroring one.

    Args:
        detail: of `textures`, [N, SIDE, SIDE].
        splits: int64 [N], number of the split; negative: none.
        similarity: correlation from which two scans are near-duplicates.
    """
    for split in sorted(set(splits[splits >= 0].tolist()))[1:]:
        asked = (splits == split).nonzero()[:, 0]
        others = ((splits >= 0) & (splits < split)).nonzero()[:, 0]
        for queries in torch.split(asked, CHUNK):
            for gallery in torch.split(others, CHUNK):
                for mirrored in (False, True):
                    view = detail[queries].flip(-1) if mirrored else detail[queries]
                    product = view.flatten(1) @ detail[gallery].flatten(1).T
                    for row, column in (product >= similarity).nonzero().tolist():
                        value = float(product[row, column])
                        yield Pair(int(queries[row]), int(gallery[column]), value, mirrored)
