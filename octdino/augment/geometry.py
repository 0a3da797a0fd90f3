"""Batched crops, resizing and rotation of images on the device."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, size: int) -> Tensor:
    """float [B, C, H, W] to [B, C, size, size], anti-aliased bilinear."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def resize_weights(centres: Tensor, step: Tensor, extent: int) -> Tensor:
    """What each of `extent` px weighs in samples at `centres`: the triangle of anti-aliased bilinear resizing.

    It is as wide as two samples lie apart, and never narrower than two px, as in Pillow and torchvision. What lies
    beyond a border is reflected at it.

    Args:
        centres: [..., S], px; 0 and `extent` are the borders.
        step: [...], px from a sample to the next.

    Returns:
        [..., S, extent]; rows sum to 1.
    """
    folded = extent - ((centres % (2 * extent)) - extent).abs()
    places = torch.arange(extent, device=centres.device) + 0.5
    support = step.clamp(min=1)[..., None, None]
    weights = (places - folded[..., None]).div_(support).abs_().neg_().add_(1).clamp_(min=0)
    return weights.div_(weights.sum(-1, keepdim=True))


def rotate(x: Tensor, angle: Tensor, aspect: Tensor, size: int) -> Tensor:
    """Turn views about their middle, and keep the inner [size, size] of them; bilinear.

    Args:
        x: [B, V, C, S, S].
        angle: [B, V], radians.
        aspect: [B, V], how many times as many px of the image a view's px spans in height as in width: the turn is one
            of the image, not of its squeezed view.

    Returns:
        [B, V, C, size, size].
    """
    at = (torch.arange(size, device=x.device) * 2 + 1 - size) / x.shape[-1]  # -1 .. 1 spans all of x
    cos, sin, aspect = (value.flatten()[:, None, None] for value in (torch.cos(angle), torch.sin(angle), aspect))
    grid = torch.stack([cos * at - sin * aspect * at[:, None], sin / aspect * at + cos * at[:, None]], dim=-1)
    flat = x.flatten(0, 1)
    turned = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return turned.view(*x.shape[:3], size, size)
