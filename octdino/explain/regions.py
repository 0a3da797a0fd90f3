"""Masks of saliency maps: share of mass that is kept, removal of small blobs, resizing; all batched."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

IN_PLANE = np.zeros((3, 3, 3), bool)  # cells touch by their sides, within their own image only
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def mass_before(maps: Tensor) -> Tensor:
    """Return the share of a map's mass in cells of higher value: float64 [..., h, w] in [0, 1), infinite at 0.

    `mass_before(maps) < 0.6` is the smallest set of cells that holds 60 % (Caron et al. 2021, `visualize_attention`);
    of equal values the first in reading order come first, and values below 0 count as 0.
    """
    values, order = maps.clamp(min=0).flatten(-2).sort(dim=-1, descending=True, stable=True)
    values = values.double()
    before = (values.cumsum(-1) - values) / values.sum(-1, keepdim=True)
    before = torch.where(values > 0, before, torch.inf)
    return torch.empty_like(before).scatter_(-1, order, before).view(maps.shape)


def without_blobs(masks: Tensor, share: float) -> Tensor:
    """Return masks without the connected parts that are smaller than `share` of the image; cells touch by their sides.

    The same as scikit-image's `remove_small_objects` image by image, in one call for all. MONAI's `RemoveSmallObjects`
    calls that function image by image: three times as slow, and it needs scikit-image at run time.

    Args:
        masks: bool [..., h, w].
    """
    stack = masks.cpu().numpy().reshape(-1, *masks.shape[-2:])
    parts, _ = ndimage.label(stack, IN_PLANE)
    large = np.bincount(parts.ravel()) >= share * stack[0].size
    large[0] = False
    return torch.from_numpy(large[parts]).view(masks.shape).to(masks.device)


@dataclass(frozen=True)
class Maps:
    """K maps of each of N images, as the network gives them.

    Attributes:
        name: attention, activation, cam, gradcam or projection.
        native: float [N, K, h, w].
        size: height and width of the image.
        smooth: resized by bilinear interpolation; else cells stay squares, as patches in the DINO paper.
    """

    name: str
    native: Tensor
    size: tuple[int, int]
    smooth: bool

    def take(self, *index: Tensor | np.ndarray | slice) -> "Maps":
        """Return the maps at these places of `native`, [n, K, h, w] or [n, 1, h, w] of pairs of image and map."""
        found = self.native[index]
        return Maps(self.name, found if found.ndim == 4 else found[:, None], self.size, self.smooth)

    def maximum(self) -> "Maps":
        """Return the largest of the K maps at each place."""
        return Maps(self.name, self.native.amax(1, keepdim=True), self.size, self.smooth)

    def pixels(self) -> Tensor:
        """float32 [N, K, *size]."""
        return _larger(self.native, self.size) if self.smooth else _nearest(self.native, self.size)

    def before(self) -> Tensor:
        """`mass_before` at each pixel, [N, K, *size]: of smooth maps by pixels, of others by cells."""
        return mass_before(self.pixels()) if self.smooth else _nearest(mass_before(self.native), self.size)

    def masks(self, mass: float, min_blob: float = 0.0) -> Tensor:
        """Return masks that hold the share `mass`, without parts below `min_blob` of the image: bool [N, K, *size]."""
        if self.smooth:
            return without_blobs(self.before() < mass, min_blob)
        kept = without_blobs(mass_before(self.native) < mass, min_blob)
        return _nearest(kept.to(torch.uint8), self.size).bool()


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="nearest-exact")


def _larger(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps.float(), size, mode="bilinear", align_corners=False)
