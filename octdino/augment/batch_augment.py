"""Random views of a batch, on the device that trains.

All views of one size are made in one call, with static shapes, without a Python loop over images and without anything
that waits for the device.

A view is a crop, flipped and resized by two batched matrix products with the weights of an anti-aliased bilinear
resize; then rotated; on RGB turned and stretched in its colours; then changed in brightness, contrast and gamma,
blurred, and multiplied with speckle. Every random number is a function of the caller's seed and the image
(`octdino.training.counter_rng`), so an image's views do not depend on what else is in the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octdino.augment.geometry import resize_weights, rotate
from octdino.augment.intensity import RGB, YIQ, colour_matrix, gaussian_blur
from octdino.config import AugmentSettings
from octdino.errors import UserError
from octdino.training.counter_rng import CounterRng, hashed, image_keys

SPARE = 128  # px by which the field of noise is larger than a view, so that views get other windows of it


@dataclass(frozen=True)
class View:
    """`count` views an image of `size` x `size` px, each covering a share of the image's area within `scale`."""

    count: int
    size: int
    scale: tuple[float, float]


class Augment:
    """Makes random views of uint8 batches. On grey there is no colour to jitter; RGB gets the same grey-level changes.

    Args:
        settings: what may change and how much.
        mean, std: of the training patients, [C], in [0, 1].
        device: where the batches are.

    Raises:
        UserError: a change of colour is asked for and the scans are grey.
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
        self.colour = bool(settings.color.saturation_max or settings.color.hue_max or settings.color.gray_p)
        if self.colour and len(mean) != 3:
            raise UserError(
                "augment.color: saturation_max, hue_max and gray_p change colors, and the scans are gray; expected 0"
            )

    def __call__(self, images: Tensor, views: Sequence[View], seed: int, rows: Tensor) -> list[Tensor]:
        """uint8 [B, C, H, W] to one standardised float32 [count * B, C, size, size] a kind of view.

        Row v * B + b of each is view v of image b.

        Args:
            images: the batch.
            views: which views.
            seed: another one, other views.
            rows: int64 [B], what each image is known by: with one seed, one image gets the same views in any batch.
        """
        pictures = images.transpose(1, 2).float()  # [B, H, C, W]
        keys = image_keys(seed, rows)
        noise = self._noise(max(view.size for view in views), seed, images.device)
        made, first = [], 0
        for view in views:
            index = torch.arange(first, first + view.count, device=images.device)
            out = self._views(pictures, view, CounterRng(hashed(keys[:, None] + index)), noise, first)
            made.append(out.transpose(0, 1).flatten(0, 1))
            first += view.count
        return made

    def _views(self, pictures: Tensor, view: View, draws: CounterRng, noise: Tensor, first: int) -> Tensor:
        """All views of one kind, float32 [B, count, C, size, size]; a draw has the shape [B, count].

        `first` of the image's views come before them.
        """
        out = self._crop(pictures, view, draws)
        jittered = draws.chosen(self.settings.jitter_p) if self.settings.jitter_p < 1 else None
        if self.colour:
            out = self._colours(out, jittered, draws)
        out = self._grey_levels(out, jittered, draws)
        if (chance := self._chance(self.solarize, self.settings.solarize_p, view, first)) is not None:
            out = torch.where(draws.chosen(chance)[..., None, None, None] & (out >= 0.5), 1 - out, out)
        if (chance := self._chance(self.blur, self.settings.blur_p, view, first)) is not None:
            out = self._blur(out, chance, draws)
        if self.settings.speckle_max:
            out = self._speckle(out, noise, draws)
        return (out - self.mean) / self.std

    def _crop(self, pictures: Tensor, view: View, draws: CounterRng) -> Tensor:
        """Crop, flip, resize and rotate pictures [B, H, C, W] of 0 .. 255 to [B, count, C, size, size] of 0 .. 1."""
        s = self.settings
        batch, height, channels, width = pictures.shape
        area = draws.uniform(*view.scale)
        ratio = torch.exp(draws.uniform(math.log(s.ratio[0]), math.log(s.ratio[1])))
        w = torch.sqrt(area * ratio).clamp_(max=1.0)  # share of the image's width
        h = torch.sqrt(area / ratio).clamp_(max=1.0)
        x = (w / 2 + draws.uniform(0, 1) * (1 - w)) * width  # centre, px
        y = (h / 2 + draws.uniform(0, 1) * (1 - h)) * height
        mirror = 1 - 2 * draws.chosen(s.flip_p).float()
        step_x, step_y = w * (width / view.size), h * (height / view.size)  # px of the image a px of the view
        size = self._margin(view.size, height / width)
        offsets = torch.arange(size, device=pictures.device) - (size - 1) / 2
        rows = resize_weights(y[..., None] + step_y[..., None] * offsets, step_y, height) / 255
        columns = resize_weights(x[..., None] + (mirror * step_x)[..., None] * offsets, step_x, width)
        out = rows.flatten(1, 2) @ pictures.flatten(2)  # [B, count * size, C * W]
        out = out.view(batch, view.count, size * channels, width) @ columns.transpose(-1, -2)
        out = out.view(batch, view.count, size, channels, size).transpose(2, 3)
        if not s.rotate_degrees:
            return out
        angle = draws.uniform(-1, 1) * math.radians(s.rotate_degrees)
        return rotate(out, angle, step_y / step_x, view.size)

    def _margin(self, size: int, aspect: float) -> int:
        """The side of what is cut out for a view of `size` px: its corners have to be there after the rotation."""
        if not self.settings.rotate_degrees:
            return size
        angle = math.radians(min(self.settings.rotate_degrees, 90.0))
        squeeze = max(aspect, 1 / aspect) * max(self.settings.ratio[1], 1 / self.settings.ratio[0])
        return size + 2 * math.ceil(size * math.sin(angle) * squeeze / 2)

    def _colours(self, x: Tensor, jittered: Tensor | None, draws: CounterRng) -> Tensor:
        """Hue is turned and saturation stretched about the grey axis: one 3 x 3 matrix a view."""
        s = self.settings
        saturation = 1 + draws.uniform(-s.color.saturation_max, s.color.saturation_max)
        turn = draws.uniform(-s.color.hue_max, s.color.hue_max)
        if jittered is not None:
            saturation, turn = torch.where(jittered, saturation, 1.0), torch.where(jittered, turn, 0.0)
        if s.color.gray_p:
            saturation = torch.where(draws.chosen(s.color.gray_p), 0.0, saturation)
        matrix = colour_matrix(saturation, turn, self.yiq, self.rgb)
        return torch.einsum("...ij,...jhw->...ihw", matrix, x)  # _grey_levels clamps

    def _grey_levels(self, x: Tensor, jittered: Tensor | None, draws: CounterRng) -> Tensor:
        s = self.settings
        gain = 1 + draws.uniform(-s.brightness_max, s.brightness_max)
        contrast = 1 + draws.uniform(-s.contrast_max, s.contrast_max)
        if jittered is not None:
            gain, contrast = torch.where(jittered, gain, 1.0), torch.where(jittered, contrast, 1.0)
        gamma = torch.exp(draws.uniform(-1, 1) * math.log(s.gamma_max))
        gain, contrast, gamma = (v[..., None, None, None] for v in (gain, contrast, gamma))
        middle = x.mean(dim=(-3, -2, -1), keepdim=True)
        return (((x - middle) * contrast + middle) * gain).clamp_(1e-4, 1).pow_(gamma)

    def _chance(self, per_view: Tensor, given: tuple[float, ...], view: View, first: int) -> Tensor | None:
        """The probability [count] of each view of a kind; None where it is 0 for all. `first` views come before these.

        `per_view` and, the same on the host, `given` are those of the first large view, the second, and all others.
        """
        if not any(given[min(first + index, 2)] for index in range(view.count)):
            return None
        return per_view[torch.arange(first, first + view.count, device=per_view.device).clamp(max=2)]

    def _blur(self, x: Tensor, chance: Tensor, draws: CounterRng) -> Tensor:
        """All views pass, so that shapes are static; a sigma of next to nothing leaves a view bit for bit as it was."""
        sigma = draws.uniform(*self.settings.blur_sigma)
        sigma = torch.where(draws.chosen(chance), sigma, 1e-3)
        return gaussian_blur(x.flatten(0, 1), sigma.flatten(), self.radius).view(x.shape)

    def _noise(self, size: int, seed: int, device: torch.device) -> Tensor:
        """The step's field of normal numbers.

        Views take windows of it: drawing each its own would cost more than all else that is done to them.
        """
        side = size + SPARE if self.settings.speckle_max else 0
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(side, side, generator=generator, device=device)

    def _speckle(self, x: Tensor, field: Tensor, draws: CounterRng) -> Tensor:
        strength = draws.uniform(0, self.settings.speckle_max)[..., None, None]
        size, limit = x.shape[-1], field.shape[-1] - x.shape[-1] + 1
        top, left = draws.below(limit), draws.below(limit)
        windows = field.unfold(0, size, 1).unfold(1, size, 1)[top, left]  # [B, count, size, size]
        return (x * (1 + strength * windows)[:, :, None]).clamp_(0, 1)
