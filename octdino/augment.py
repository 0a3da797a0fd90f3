"""Random views of a batch, on the device that trains: all views of one size in one call, static shapes, no Python loop
over images.

A view is one affine map (crop, flip, rotation) sampled by `grid_sample` from the smallest anti-aliased copy of the
image that the crop does not magnify, followed on RGB by a turn and a stretch of the colours, then by pointwise
brightness, contrast and gamma, a separable Gaussian blur and multiplicative speckle. Every random number comes from the
generator that the caller passes, so views do not depend on anything else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from octdino.config import AugmentSettings
from octdino.errors import UserError

YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))  # NTSC's luma and two colour axes
BLUR_RADIUS = 3  # px; covers three standard deviations of the largest sigma


@dataclass(frozen=True)
class View:
    """`count` views an image of `size` x `size` px, each covering a share of the image's area within `scale`."""

    count: int
    size: int
    scale: tuple[float, float]


def standardise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to float32 with the given mean and standard deviation [C] (in [0, 1])."""
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


def resize(images: Tensor, size: int) -> Tensor:
    """float [B, C, H, W] to [B, C, size, size], anti-aliased bilinear."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


class Augment:
    """Makes random views of uint8 batches. On grey there is no colour to jitter; RGB gets the same grey-level changes.

    Args:
        settings: what may change and how much.
        mean, std: of the training patients, [C], in [0, 1].

    Raises:
        UserError: a change of colour is asked for and the scans are grey.
    """

    def __init__(self, settings: AugmentSettings, mean: Sequence[float], std: Sequence[float]) -> None:
        self.settings = settings
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self.colour = bool(settings.saturation or settings.hue or settings.grey)
        if self.colour and len(mean) != 3:
            raise UserError("augment: saturation, hue and grey change colours, and the scans are grey; expected 0")

    def __call__(self, images: Tensor, views: Sequence[View], generator: torch.Generator) -> list[Tensor]:
        """uint8 [B, C, H, W] to one standardised float32 [count * B, C, size, size] a kind of view.

        Row v * B + b of each is view v of image b.
        """
        levels = _pyramid(images.float().div_(255), min(view.size for view in views))
        return [self._views(levels, view, generator) for view in views]

    def _views(self, levels: list[Tensor], view: View, generator: torch.Generator) -> Tensor:
        count = view.count * len(levels[0])
        theta, magnification = self._affine(count, view, levels[0].shape, generator)
        out = _sample(levels, theta, magnification, view)
        jittered = _uniform(count, 0, 1, generator) < self.settings.jitter if self.settings.jitter < 1 else None
        if self.colour:
            out = self._colours(out, jittered, generator)
        out = self._grey_levels(out, jittered, generator)
        out = self._blur(out, generator)
        out = self._speckle(out, generator)
        device = out.device
        mean, std = self.mean.to(device), self.std.to(device)
        return (out - mean[:, None, None]) / std[:, None, None]

    def _affine(self, count: int, view: View, shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crop, flip and rotation as [count, 2, 3] in grid_sample's coordinates; and source px per view px [count]."""
        s = self.settings
        height, width = shape[-2:]
        area = _uniform(count, *view.scale, generator)
        ratio = torch.exp(_uniform(count, math.log(s.ratio[0]), math.log(s.ratio[1]), generator))
        w = torch.sqrt(area * ratio).clamp_(max=1.0)  # share of the image's width
        h = torch.sqrt(area / ratio).clamp_(max=1.0)
        x = _uniform(count, -1, 1, generator) * (1 - w)  # centre; the image spans -1 .. 1
        y = _uniform(count, -1, 1, generator) * (1 - h)
        mirror = 1 - 2 * (_uniform(count, 0, 1, generator) < s.flip).float()
        angle = _uniform(count, -1, 1, generator) * math.radians(s.rotate)
        cos, sin = torch.cos(angle), torch.sin(angle)
        aspect = (h * height) / (w * width)  # rotate in pixels, not in the image's unit square
        theta = torch.stack(
            [
                torch.stack([mirror * w * cos, -w * sin * aspect, x], -1),
                torch.stack([mirror * h * sin / aspect, h * cos, y], -1),
            ],
            dim=1,
        )
        magnification = torch.minimum(h * height, w * width) / view.size
        return theta, magnification

    def _colours(self, x: Tensor, jittered: Tensor | None, generator: torch.Generator) -> Tensor:
        """Hue is turned and saturation stretched about the grey axis: one 3 x 3 matrix an image."""
        s, n = self.settings, len(x)
        saturation = 1 + _uniform(n, -s.saturation, s.saturation, generator)
        turn = _uniform(n, -s.hue, s.hue, generator)
        if jittered is not None:
            saturation, turn = torch.where(jittered, saturation, 1.0), torch.where(jittered, turn, 0.0)
        if s.grey:
            saturation = torch.where(_uniform(n, 0, 1, generator) < s.grey, 0.0, saturation)
        matrix = colour_matrix(saturation, turn)
        return torch.einsum("nij,njhw->nihw", matrix, x)  # _grey_levels clamps

    def _grey_levels(self, x: Tensor, jittered: Tensor | None, generator: torch.Generator) -> Tensor:
        s = self.settings
        n = len(x)
        gain = 1 + _uniform(n, -s.brightness, s.brightness, generator)
        contrast = 1 + _uniform(n, -s.contrast, s.contrast, generator)
        if jittered is not None:
            gain, contrast = torch.where(jittered, gain, 1.0), torch.where(jittered, contrast, 1.0)
        gamma = torch.exp(_uniform(n, -1, 1, generator) * math.log(s.gamma))
        gain, contrast, gamma = (v[:, None, None, None] for v in (gain, contrast, gamma))
        middle = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (((x - middle) * contrast + middle) * gain).clamp_(1e-4, 1).pow(gamma)
        if s.solarize:
            invert = (_uniform(n, 0, 1, generator) < s.solarize)[:, None, None, None]
            x = torch.where(invert & (x >= 0.5), 1 - x, x)
        return x

    def _blur(self, x: Tensor, generator: torch.Generator) -> Tensor:
        s = self.settings
        sigma = _uniform(len(x), *s.blur_sigma, generator)
        chosen = (_uniform(len(x), 0, 1, generator) < s.blur).nonzero()[:, 0]
        if len(chosen):
            x[chosen] = gaussian_blur(x[chosen], sigma[chosen])
        return x

    def _speckle(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if not self.settings.speckle:
            return x
        strength = _uniform(len(x), 0, self.settings.speckle, generator)[:, None, None, None]
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        return (x * (1 + strength * noise)).clamp_(0, 1)


def colour_matrix(saturation: Tensor, turn: Tensor) -> Tensor:
    """What scales the distance from grey by `saturation` [n] and turns hues by `turn` [n], 1 the circle: [n, 3, 3].

    A rotation about the grey axis in YIQ, as video has it; luma does not change.
    """
    yiq = torch.tensor(YIQ, dtype=torch.float64, device=turn.device)
    angle = 2 * math.pi * turn.double()
    cos, sin = saturation * torch.cos(angle), saturation * torch.sin(angle)
    change = torch.eye(3, dtype=torch.float64, device=turn.device).repeat(len(turn), 1, 1)
    change[:, 1, 1], change[:, 1, 2], change[:, 2, 1], change[:, 2, 2] = cos, -sin, sin, cos
    matrix: Tensor = (torch.linalg.inv(yiq) @ change @ yiq).float()
    return matrix


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur of [n, C, H, W] with a sigma (px) an image, [n]; borders are replicated."""
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=x.device)
    kernel = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)[:, :, None, None, None]  # [n, taps, 1, 1, 1]
    for axis in (2, 3):
        size = x.shape[axis]
        ends = (0, 0, BLUR_RADIUS, BLUR_RADIUS) if axis == 2 else (BLUR_RADIUS, BLUR_RADIUS, 0, 0)
        padded = F.pad(x, ends, "replicate")
        x = kernel[:, 0] * padded.narrow(axis, 0, size)
        for tap in range(1, 2 * BLUR_RADIUS + 1):  # shifted sums: no im2col copy, which costs more than the sums
            x = torch.addcmul(x, kernel[:, tap], padded.narrow(axis, tap, size))
    return x


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def _pyramid(images: Tensor, smallest: int) -> list[Tensor]:
    """The image and its halvings (2 x 2 means), while the short side is at least `smallest` px."""
    levels = [images]
    while min(levels[-1].shape[-2:]) >= 2 * smallest:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def _sample(levels: list[Tensor], theta: Tensor, magnification: Tensor, view: View) -> Tensor:
    """Sample every view from the level of the pyramid nearest to its own resolution: [count * B, C, size, size]."""
    images = levels[0]
    batch, channels = images.shape[:2]
    level = torch.log2(magnification.clamp(min=1)).round().long().clamp_(max=len(levels) - 1)
    out = images.new_empty(len(theta), channels, view.size, view.size)
    source = torch.arange(len(theta), device=images.device) % batch
    for index, pictures in enumerate(levels):
        chosen = (level == index).nonzero()[:, 0]
        if len(chosen):
            grid = F.affine_grid(theta[chosen], [len(chosen), channels, view.size, view.size], align_corners=False)
            out[chosen] = F.grid_sample(
                pictures[source[chosen]], grid, mode="bilinear", padding_mode="reflection", align_corners=False
            )
    return out
