"""Patches of images and of a vision transformer: pixels in patch order, fixed sine-cosine positions."""

import torch
from torch import Tensor


def patchify(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """Return the pixels of each patch, [N, P, h * w * C], of images [N, C, H, W]; patches and pixels row by row.

    Args:
        patch: h, w in px; they divide H and W.
    """
    count, channels, height, width = images.shape
    pixels = images.reshape(count, channels, height // patch[0], patch[0], width // patch[1], patch[1])
    return pixels.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return the images [N, C, H, W] of patches [N, P, h * w * C] as `patchify` returns them.

    Args:
        patch: h, w in px.
        grid: rows and columns of patches.
    """
    pixels = patches.reshape(len(patches), *grid, *patch, -1)  # [N, H / h, W / w, h, w, C]
    return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def sin_cos_positions(grid: tuple[int, int], dim: int, device: torch.device | None = None) -> Tensor:
    """Return fixed 2-D sine-cosine position embeddings, float32 [P, dim], row by row (Chen et al. 2021, MoCo v3, 4.3).

    The first half of the dimensions encodes the column, the second the row: sines, then cosines of the coordinate times
    10000^(-4i / dim), i = 0 .. dim / 4 - 1 (Vaswani et al. 2017, 3.5, once per axis).

    Args:
        grid: rows and columns of patches.
        dim: a multiple of 4.
    """
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64, device=device) / (dim // 4))
    rows, columns = (torch.arange(n, device=device).double()[:, None] * frequencies for n in grid)  # [n, dim / 4]
    rows, columns = (torch.cat([angle.sin(), angle.cos()], 1) for angle in (rows, columns))
    both = torch.cat([columns.expand(grid[0], -1, -1), rows[:, None].expand(-1, grid[1], -1)], dim=2)
    return both.flatten(0, 1).float()
