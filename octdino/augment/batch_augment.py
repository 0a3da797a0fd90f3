"""Data augmentation: random views of a batch on the device that trains.

All views of one size are made in one call, with static shapes, no Python loop over images, and nothing that waits for
the device. A view is a crop, flipped and resized by two batched matrix products with the weights of an anti-aliased
bilinear resize; then rotated; on RGB changed in hue and saturation; then in brightness, contrast and gamma; solarized,
blurred, and multiplied with speckle. Every random number is a function of the caller's seed and the image
(`octdino.training.counter_rng`), so an image's views do not depend on what else is in the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octdino.augment.geometry import resize_weights, rotate
from octdino.augment.intensity import RGB, YIQ, color_matrix, gaussian_blur
from octdino.config import AugmentSettings
from octdino.errors import UserError
from octdino.training.counter_rng import CounterRng, image_keys, splitmix64

NOISE_MARGIN = 128  # px by which the noise field is larger than a view, so that views get different windows of it


@dataclass(frozen=True)
class View:
    """A kind of view: `count` views per image of `size` px squared, each a share of its area within `scale`.

    With `crop_only` a view is cropped, flipped and resized, and nothing else.
    """

    count: int
    size: int
    scale: tuple[float, float]
    crop_only: bool = False


class Augment:
    """Makes random views of uint8 batches; gray and RGB get the same gray-level changes, only RGB color jitter.

    Args:
        settings: probabilities and magnitudes of all changes.
        mean, std: of the training patients, [C], in [0, 1].
        device: of the batches.

    Raises:
        UserError: the settings change colors and the scans are gray.
    """

    def __init__(
        self,
        settings: AugmentSettings,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | None = None,
    ) -> None:
        self.settings = settings
        self.mean, self.std = (torch.tensor(x, device=device)[:, None, None] for x in (mean, std))
        self.yiq, self.rgb = YIQ.to(device), RGB.to(device)
        self.radius = math.ceil(3 * settings.blur_sigma[1])  # px; three standard deviations of the largest sigma
        self.blur, self.solarize = (torch.tensor(p, device=device) for p in (settings.blur_p, settings.solarize_p))
        self.color = bool(settings.color.saturation_max or settings.color.hue_max or settings.color.gray_p)
        if self.color and len(mean) != 3:
            raise UserError(
                "augment.color: saturation_max, hue_max and gray_p change colors, and the scans are gray; expected 0"
            )

    def __call__(self, images: Tensor, views: Sequence[View], seed: int, rows: Tensor) -> list[Tensor]:
        """Return standardized float32 views [count * B, C, size, size] per kind of view, of uint8 images [B, C, H, W].

        Row v * B + b of each is view v of image b.

        Args:
            views: kinds of views.
            seed: of all random choices.
            rows: int64 [B], identifies each image: with one seed, an image gets the same views in every batch.
        """
        pixels = images.transpose(1, 2).float()  # [B, H, C, W]
        keys = image_keys(seed, rows)
        noise = self._noise(max(view.size for view in views), seed, images.device)
        made, first = [], 0
        for view in views:
            index = torch.arange(first, first + view.count, device=images.device)
            out = self._views(pixels, view, CounterRng(splitmix64(keys[:, None] + index)), noise, first)
            made.append(out.transpose(0, 1).flatten(0, 1))
            first += view.count
        return made

    def _views(self, pixels: Tensor, view: View, rng: CounterRng, noise: Tensor, first: int) -> Tensor:
        """Return all views of one kind, float32 [B, count, C, size, size]; `rng` returns numbers of shape [B, count].

        `first` is the index of the first of them among the image's views.
        """
        out = self._crop(pixels, view, rng)
        if view.crop_only:
            return (out - self.mean) / self.std
        jittered = rng.bernoulli(self.settings.jitter_p) if self.settings.jitter_p < 1 else None
        if self.color:
            out = self._color_jitter(out, jittered, rng)
        out = self._gray_levels(out, jittered, rng)
        if (probability := self._probability(self.solarize, self.settings.solarize_p, view, first)) is not None:
            out = torch.where(rng.bernoulli(probability)[..., None, None, None] & (out >= 0.5), 1 - out, out)
        if (probability := self._probability(self.blur, self.settings.blur_p, view, first)) is not None:
            out = self._blur(out, probability, rng)
        if self.settings.speckle_max:
            out = self._speckle(out, noise, rng)
        return (out - self.mean) / self.std

    def _crop(self, pixels: Tensor, view: View, rng: CounterRng) -> Tensor:
        """Crop, flip, resize and rotate pixels [B, H, C, W] in 0 .. 255 to [B, count, C, size, size] in 0 .. 1."""
        s = self.settings
        batch, height, channels, width = pixels.shape
        area = rng.uniform(*view.scale)
        ratio = torch.exp(rng.uniform(math.log(s.ratio[0]), math.log(s.ratio[1])))
        w = torch.sqrt(area * ratio).clamp_(max=1.0)  # share of the image's width
        h = torch.sqrt(area / ratio).clamp_(max=1.0)
        x = (w / 2 + rng.uniform(0, 1) * (1 - w)) * width  # center, px
        y = (h / 2 + rng.uniform(0, 1) * (1 - h)) * height
        mirror = 1 - 2 * rng.bernoulli(s.flip_p).float()
        step_x, step_y = w * (width / view.size), h * (height / view.size)  # px of the image per px of the view
        degrees = 0.0 if view.crop_only else s.rotate_degrees
        size = self._margin(view.size, height / width) if degrees else view.size
        offsets = torch.arange(size, device=pixels.device) - (size - 1) / 2
        rows = resize_weights(y[..., None] + step_y[..., None] * offsets, step_y, height) / 255
        columns = resize_weights(x[..., None] + (mirror * step_x)[..., None] * offsets, step_x, width)
        out = rows.flatten(1, 2) @ pixels.flatten(2)  # [B, count * size, C * W]
        out = out.view(batch, view.count, size * channels, width) @ columns.transpose(-1, -2)
        out = out.view(batch, view.count, size, channels, size).transpose(2, 3)
        if not degrees:
            return out
        angle = rng.uniform(-1, 1) * math.radians(degrees)
        return rotate(out, angle, step_y / step_x, view.size)

    def _margin(self, size: int, aspect: float) -> int:
        """Return the side of the crop for a view of `size` px, large enough for its corners after the rotation."""
        angle = math.radians(min(self.settings.rotate_degrees, 90.0))
        squeeze = max(aspect, 1 / aspect) * max(self.settings.ratio[1], 1 / self.settings.ratio[0])
        return size + 2 * math.ceil(size * math.sin(angle) * squeeze / 2)

    def _color_jitter(self, x: Tensor, jittered: Tensor | None, rng: CounterRng) -> Tensor:
        """Rotate hue and scale saturation about the gray axis: one 3 x 3 matrix per view."""
        s = self.settings
        saturation = 1 + rng.uniform(-s.color.saturation_max, s.color.saturation_max)
        turn = rng.uniform(-s.color.hue_max, s.color.hue_max)
        if jittered is not None:
            saturation, turn = torch.where(jittered, saturation, 1.0), torch.where(jittered, turn, 0.0)
        if s.color.gray_p:
            saturation = torch.where(rng.bernoulli(s.color.gray_p), 0.0, saturation)
        matrix = color_matrix(saturation, turn, self.yiq, self.rgb)
        return torch.einsum("...ij,...jhw->...ihw", matrix, x)  # _gray_levels clamps

    def _gray_levels(self, x: Tensor, jittered: Tensor | None, rng: CounterRng) -> Tensor:
        s = self.settings
        gain = 1 + rng.uniform(-s.brightness_max, s.brightness_max)
        contrast = 1 + rng.uniform(-s.contrast_max, s.contrast_max)
        if jittered is not None:
            gain, contrast = torch.where(jittered, gain, 1.0), torch.where(jittered, contrast, 1.0)
        gamma = torch.exp(rng.uniform(-1, 1) * math.log(s.gamma_max))
        gain, contrast, gamma = (v[..., None, None, None] for v in (gain, contrast, gamma))
        middle = x.mean(dim=(-3, -2, -1), keepdim=True)
        return (((x - middle) * contrast + middle) * gain).clamp_(1e-4, 1).pow_(gamma)

    def _probability(self, per_view: Tensor, given: tuple[float, ...], view: View, first: int) -> Tensor | None:
        """Return the probability [count] of each view of a kind, or None if all are 0.

        Args:
            per_view: [3], of the first large view, the second, and all others, on the device.
            given: the same on the host.
            first: index of the first view of this kind among the image's views.
        """
        if not any(given[min(first + index, 2)] for index in range(view.count)):
            return None
        return per_view[torch.arange(first, first + view.count, device=per_view.device).clamp(max=2)]

    def _blur(self, x: Tensor, probability: Tensor, rng: CounterRng) -> Tensor:
        """Blur all views, so that shapes are static; a sigma of 1e-3 leaves a view bit-identical."""
        sigma = rng.uniform(*self.settings.blur_sigma)
        sigma = torch.where(rng.bernoulli(probability), sigma, 1e-3)
        return gaussian_blur(x.flatten(0, 1), sigma.flatten(), self.radius).view(x.shape)

    def _noise(self, size: int, seed: int, device: torch.device) -> Tensor:
        """Return the step's field of normal noise, of which views take windows.

        Sampling noise per view would cost more than the rest of the augmentation.
        """
        side = size + NOISE_MARGIN if self.settings.speckle_max else 0
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(side, side, generator=generator, device=device)

    def _speckle(self, x: Tensor, field: Tensor, rng: CounterRng) -> Tensor:
        strength = rng.uniform(0, self.settings.speckle_max)[..., None, None]
        size, limit = x.shape[-1], field.shape[-1] - x.shape[-1] + 1
        top, left = rng.integers(limit), rng.integers(limit)
        windows = field.unfold(0, size, 1).unfold(1, size, 1)[top, left]  # [B, count, size, size]
        return (x * (1 + strength * windows)[:, :, None]).clamp_(0, 1)
