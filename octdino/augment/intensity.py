"""Batched changes of gray levels and colors: standardization, hue and saturation, Gaussian blur."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

YIQ = torch.tensor(  # luma and two color axes of NTSC
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64
)
RGB = torch.linalg.inv(YIQ)


def standardize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardize uint8 [B, C, H, W] to float32 with mean and standard deviation [C], in [0, 1]."""
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


def color_matrix(saturation: Tensor, turn: Tensor, yiq: Tensor = YIQ, rgb: Tensor = RGB) -> Tensor:
    """Return RGB matrices [..., 3, 3] that scale saturation by `saturation` and rotate hue by `turn` (1: full circle).

    A rotation about the gray axis in YIQ; luma does not change. `yiq` and its inverse `rgb` are on the same device.
    """
    angle = 2 * math.pi * turn.double()
    cos, sin = saturation * torch.cos(angle), saturation * torch.sin(angle)
    one, none = torch.ones_like(cos), torch.zeros_like(cos)
    change = torch.stack([one, none, none, none, cos, -sin, none, sin, cos], -1).view(*turn.shape, 3, 3)
    matrix: Tensor = (rgb @ change @ yiq).float()
    return matrix


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Separable Gaussian blur of [n, C, H, W] with one sigma (px) per image, [n]; borders are replicated.

    The kernel is cut off at `radius` px: three times the largest sigma loses 0.3 % of it.
    """
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)[:, :, None, None, None]  # [n, taps, 1, 1, 1]
    for axis in (2, 3):
        size = x.shape[axis]
        ends = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = F.pad(x, ends, "replicate")
        x = kernel[:, 0] * padded.narrow(axis, 0, size)
        for tap in range(1, 2 * radius + 1):  # shifted sums avoid an im2col copy, which costs more than the sums
            x = torch.addcmul(x, kernel[:, tap], padded.narrow(axis, tap, size))
    return x
