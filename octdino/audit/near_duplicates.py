"""Pictures that are copies of each other: resized, brightened, compressed or mirrored."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 48  # px; small enough to forget compression, large enough to keep vessels and speckle
DETAIL = 7  # px: what is coarser than this all scans of one organ share
CHUNK = 2048  # scans on either side of a product


@dataclass(frozen=True)
class Pair:
    """Two scans by their rows, how alike they are (1: the same), and whether one is mirrored."""

    one: int
    other: int
    similarity: float
    mirrored: bool


def textures(images: Tensor) -> Tensor:
    """What tells a picture from others of its kind: its fine detail, of length 1, whatever its brightness and size.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        float32 [N, SIDE, SIDE]; zeros where a picture has no detail.
    """
    found = []
    for part in torch.split(images, 512):
        grey = part.float().mean(1, keepdim=True)
        small = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)
        coarse = F.avg_pool2d(F.pad(small, [DETAIL // 2] * 4, "replicate"), DETAIL, 1)
        detail = small - coarse
        # Each px beside the contrast around it: else a few bright layers are all that counts.
        spread = F.avg_pool2d(F.pad(detail**2, [DETAIL // 2] * 4, "replicate"), DETAIL, 1).sqrt()
        found.append((detail / (spread + 1.0))[:, 0])
    joined = torch.cat(found) if found else torch.zeros(0, SIDE, SIDE)
    return F.normalize(joined.flatten(1), dim=1).view(-1, SIDE, SIDE)


def copies(detail: Tensor, sides: Tensor, similarity: float) -> Iterator[Pair]:
    """Pairs of scans on different sides whose textures agree, also after mirroring one.

    Args:
        detail: of `textures`, [N, SIDE, SIDE].
        sides: int64 [N], which side of the split; negative: none.
        similarity: correlation from which two are one picture.
    """
    for side in sorted(set(sides[sides >= 0].tolist()))[1:]:
        asked = (sides == side).nonzero()[:, 0]
        others = ((sides >= 0) & (sides < side)).nonzero()[:, 0]
        for queries in torch.split(asked, CHUNK):
            for bank in torch.split(others, CHUNK):
                for mirrored in (False, True):
                    view = detail[queries].flip(-1) if mirrored else detail[queries]
                    product = view.flatten(1) @ detail[bank].flatten(1).T
                    for row, column in (product >= similarity).nonzero().tolist():
                        value = float(product[row, column])
                        yield Pair(int(queries[row]), int(bank[column]), value, mirrored)
