"""Batched crops, resizing and rotation of images on the device."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, size: int) -> Tensor:
    """Resize float [B, C, H, W] to [B, C, size, size], anti-aliased bilinear."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def resize_weights(centers: Tensor, step: Tensor, extent: int) -> Tensor:
    """Return the weights of `extent` px in samples at `centers`: the triangle filter of anti-aliased bilinear resizing.

    It is two sample distances wide, and at least two px, as in Pillow and torchvision. Samples beyond a border are
    reflected at it.

    Args:
        centers: [..., S], px; 0 and `extent` are the borders.
        step: [...], px between two samples.

    Returns:
        [..., S, extent]; rows sum to 1.
    """
    folded = extent - ((centers % (2 * extent)) - extent).abs()
    places = torch.arange(extent, device=centers.device) + 0.5
    support = step.clamp(min=1)[..., None, None]
    weights = (places - folded[..., None]).div_(support).abs_().neg_().add_(1).clamp_(min=0)
    return weights.div_(weights.sum(-1, keepdim=True))


def rotate(x: Tensor, angle: Tensor, aspect: Tensor, size: int) -> Tensor:
    """Rotate views about their center, and crop their inner [size, size]; bilinear.

    Args:
        x: [B, V, C, S, S].
        angle: [B, V], radians.
        aspect: [B, V], height over width of a view's px in px of the image: the image is rotated, not its squeezed
            view.

    Returns:
        [B, V, C, size, size].
    """
    at = (torch.arange(size, device=x.device) * 2 + 1 - size) / x.shape[-1]  # -1 .. 1 spans all of x
    cos, sin, aspect = (value.flatten()[:, None, None] for value in (torch.cos(angle), torch.sin(angle), aspect))
    grid = torch.stack([cos * at - sin * aspect * at[:, None], sin / aspect * at + cos * at[:, None]], dim=-1)
    flat = x.flatten(0, 1)
    rotated = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return rotated.view(*x.shape[:3], size, size)
