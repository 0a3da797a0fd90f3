"""Augmentation compared with torchvision, scipy and closed forms, image by image."""

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as tv

from octdino.augment import Augment, View, resize
from octdino.augment.geometry import resize_weights, rotate
from octdino.augment.intensity import color_matrix, gaussian_blur
from octdino.config import AugmentSettings
from octdino.errors import UserError

STILL = AugmentSettings(
    global_scale=(1, 1),
    ratio=(1, 1),
    flip_p=0,
    rotate_degrees=0,
    brightness_max=0,
    contrast_max=0,
    gamma_max=1,
    blur_p=0,
    speckle_max=0,
)
PLAIN = ([0.0], [1.0])  # mean, std: leave the gray levels as they are


def smooth(batch=3, size=64, channels=1, seed=0):
    """Images without detail finer than a few pixels, so that resampling methods agree."""
    noise = np.random.default_rng(seed).normal(size=(batch, channels, size, size))
    field = gaussian_filter(noise, (0, 0, 4, 4))
    field = (field - field.min()) / (field.max() - field.min())
    return torch.from_numpy((field * 255).astype(np.uint8))


def still(changes):
    """Return settings without any change except `changes`."""
    return AugmentSettings.parse({**STILL.model_dump(), **changes}, "test")


def make(changes, view, images, seed=0, mean_std=PLAIN):
    channels = images.shape[1]
    mean, std = (values * channels for values in mean_std)
    (out,) = Augment(still(changes), mean, std)(images, [view], seed, torch.arange(len(images)))
    return out


@pytest.mark.parametrize("size", [96, 64, 50, 48, 21, 16])
def test_unchanged_view_equals_torchvisions_anti_aliased_resize(size):
    images = torch.randint(0, 256, (3, 2, 64, 80), dtype=torch.uint8)  # noise: the worst that can be resized
    out = make({}, View(1, size, (1, 1)), images)
    expected = tv.resize(images.float() / 255, [size, size], antialias=True)
    torch.testing.assert_close(out, expected.clamp(1e-4, 1), rtol=0, atol=1e-5)


def test_crop_equals_torchvisions_anti_aliased_crop():
    """With whole px, and away from the crop's borders, where torchvision does not read px beyond the crop."""
    images = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8).float()
    step = torch.tensor([40 / 16])
    centers = 8 + step[:, None] * (torch.arange(16) + 0.5)
    weights = resize_weights(centers, step, 64)
    expected = tv.resized_crop(images, 8, 8, 40, 40, [16, 16], antialias=True)
    torch.testing.assert_close((weights @ images @ weights.mT)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])


def test_samples_beyond_a_border_are_reflected():
    """Compared with a mirrored image; one sample width away from the border, where the triangle is cut."""
    image = torch.rand(20)
    mirrored = torch.cat([image.flip(0), image, image.flip(0)])
    step, centers = torch.tensor(2.0), torch.arange(-17.5, 37.5, 2.0)
    clear = (centers.abs() > 2) & ((centers - 20).abs() > 2)
    got = resize_weights(centers, step, 20) @ image
    torch.testing.assert_close(got[clear], (resize_weights(centers + 20, step, 60) @ mirrored)[clear])


@pytest.mark.parametrize("degrees", [0.0, 5.0, -17.0, 90.0])
def test_rotation_equals_torchvisions(degrees):
    x = torch.rand(2, 1, 3, 33, 33)
    angle = torch.full((2, 1), math.radians(degrees))
    got = rotate(x, angle, torch.ones(2, 1), 21)
    expected = tv.rotate(x[:, 0], degrees, tv.InterpolationMode.BILINEAR)[..., 6:-6, 6:-6]
    torch.testing.assert_close(got[:, 0], expected, rtol=0, atol=2e-4)


def test_downsampling_does_not_alias():
    stripes = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    stripes[..., ::2] = 255  # finer than a view of 16 px can resolve: the view must be uniform gray
    out = make({}, View(1, 16, (1, 1)), stripes)
    assert out.std() < 0.02
    assert out.mean() == pytest.approx(0.5, abs=0.02)


def test_flip_is_horizontal_only():
    images = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    images[..., :16, :8] = 200  # upper left
    out = make({"flip_p": 1.0}, View(1, 32, (1, 1)), images)
    assert out[0, 0, :14, 26:].mean() > 0.7
    assert out[0, 0, 18:].mean() < 0.01
    assert out[0, 0, :, :20].mean() < 0.01


def test_rotation_keeps_angles_on_images_that_are_not_square():
    """A horizontal line in a 2:1 image, rotated and shown in a square view, falls by tan(angle) x 2 (the squeeze)."""
    images = torch.zeros(64, 1, 64, 128, dtype=torch.uint8)
    images[:, :, 31:33] = 255
    out = make({"rotate_degrees": 10.0}, View(1, 64, (1, 1)), images)
    rows = torch.arange(64.0)
    heights = (out[:, 0] * rows[:, None]).sum(1) / out[:, 0].sum(1)  # of the line in each column
    slopes = ((heights[:, 48] - heights[:, 16]) / 32).abs()
    assert slopes.max() <= 2 * math.tan(math.radians(10)) + 0.02
    assert slopes.max() > 2 * math.tan(math.radians(8))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.5), st.floats(0.5, 1.0), st.integers(0, 1000))
def test_crops_cover_a_share_of_the_area_within_scale(low, high, seed):
    """The slope of a ramp in the view gives the share of the image that the view covers."""
    ramp = torch.arange(64, dtype=torch.uint8).repeat(64, 1)[None, None].repeat(16, 2, 1, 1)
    ramp[:, 1] = ramp[:, 1].transpose(-1, -2).clone()  # channel 0 rises to the right, channel 1 downwards
    out = make({"global_scale": (low, high)}, View(1, 32, (low, high)), ramp) * 255
    width = (out[:, 0, 16, 24] - out[:, 0, 16, 8]) * 2 / 64
    height = (out[:, 1, 24, 16] - out[:, 1, 8, 16]) * 2 / 64
    area = width * height
    assert (area > low - 0.08).all()
    assert (area < high + 0.08).all()


def test_blur_equals_scipys():
    x = torch.rand(3, 2, 20, 24, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 1.0, 2.0])
    radius = Augment(AugmentSettings(blur_sigma=(0.1, 2.0)), [0.0], [1.0]).radius
    out = gaussian_blur(x, sigma, radius)
    for image, s, got in zip(x, sigma, out, strict=True):
        expected = gaussian_filter(image.double().numpy(), (0, float(s), float(s)), mode="nearest", radius=(0, 6, 6))
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def changed(change, seed=0):
    """Return which of two large and three small views of 400 images differ from unchanged views: bool [400, 5]."""
    images = torch.randint(0, 256, (400, 1, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    kinds, rows = [View(2, 24, (1, 1)), View(3, 16, (1, 1))], torch.arange(400)
    change = {**change, "blur_sigma": (0.5, 1.0)}
    made = [Augment(still(one), [0.0], [1.0])(images, kinds, seed, rows) for one in ({}, change)]
    differs = [(a - b).abs().amax(dim=(1, 2, 3)) > 1e-6 for a, b in zip(*made, strict=True)]
    return torch.cat([one.view(-1, 400) for one in differs]).T


@pytest.mark.parametrize("name", ["blur_p", "solarize_p"])
def test_each_view_has_its_own_probability(name):
    found = changed({name: (1.0, 0.1, 0.5)}).float().mean(0)
    assert found[0] == 1
    assert found[1] == pytest.approx(0.1, abs=0.05)
    assert found[2:].tolist() == pytest.approx([0.5] * 3, abs=0.08)
    assert changed({name: (0.0, 1.0, 0.0)}).float().mean(0).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("value", [0.3, [0.3], "0.3", ["0.3"], [0.3, 0.3, 0.3]])
def test_one_probability_applies_to_all_views(value):
    assert AugmentSettings(blur_p=value).blur_p == (0.3, 0.3, 0.3)


@pytest.mark.parametrize("value", [1.1, [0.1, 0.2], [0.1, 0.2, 2], "often", [], None])
def test_invalid_probabilities_raise_user_error(value):
    with pytest.raises(
        UserError, match=r"^x: solarize_p: .* is not allowed; expected one probability from 0 to 1, or t"
    ):
        AugmentSettings.parse({"solarize_p": value}, "x")


def test_gray_levels_stay_in_range_and_are_standardized_last():
    images = smooth(8)
    wild = {"brightness_max": 0.9, "contrast_max": 0.9, "gamma_max": 2.0, "speckle_max": 0.5, "solarize_p": 0.5}
    out = make(wild, View(2, 32, (1, 1)), images, mean_std=([0.5], [0.25]))
    assert out.shape == (16, 1, 32, 32)
    assert out.min() >= -2
    assert out.max() <= 2


def test_views_depend_on_the_seed_only():
    images, s = smooth(4), AugmentSettings(global_size=32, local_size=16)
    kinds = [View(2, 32, s.global_scale), View(3, 16, s.local_scale)]
    first, second, other = (Augment(s, [0.2], [0.2])(images, kinds, seed, torch.arange(4)) for seed in (1, 1, 2))
    assert [x.shape for x in first] == [(8, 1, 32, 32), (12, 1, 16, 16)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][:4], first[0][4:]), "two views of an image differ"


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 6), st.integers(0, 2**63 - 1), st.sampled_from([1, 3]))
def test_views_of_an_image_do_not_depend_on_its_batch(order, kept, seed, channels):
    """Neither on its place nor on other images, so views are the same with any number of processes."""
    s = AugmentSettings(global_size=32, local_size=16, solarize_p=0.3, color={"saturation_max": 0.2 * (channels == 3)})
    images, rows = smooth(6, 40, channels), torch.tensor([5, 0, 77_999, 12, 13, 40])
    kinds = [View(2, 32, s.global_scale), View(3, 16, s.local_scale)]
    augment, chosen = Augment(s, [0.2] * channels, [0.2] * channels), torch.tensor(order[:kept])
    whole = augment(images, kinds, seed, rows)
    part = augment(images[chosen], kinds, seed, rows[chosen])
    for a, b in zip(whole, part, strict=True):
        views = a.view(-1, 6, *a.shape[1:])[:, chosen].flatten(0, 1)
        torch.testing.assert_close(b, views, rtol=0, atol=2e-6)  # products of other shapes round in another order


def test_speckle_has_the_configured_strength():
    images = torch.full((600, 1, 32, 32), 128, dtype=torch.uint8)
    out = make({"speckle_max": 0.2}, View(1, 32, (1, 1)), images) / (128 / 255) - 1
    spread = out.std(dim=(1, 2, 3))  # of each view: uniform up to 0.2
    assert spread.max() < 0.22
    assert spread.mean() == pytest.approx(0.1, abs=0.01)
    assert out.mean().abs() < 0.005
    assert (out[0] / spread[0] - out[1] / spread[1]).std() > 1, "each view has its own"


def test_row_order_is_view_then_image():
    images = torch.stack([torch.full((1, 32, 32), value, dtype=torch.uint8) for value in (10, 200)])
    out = make({}, View(2, 16, (1, 1)), images)
    assert (out.mean(dim=(1, 2, 3)) * 255).round().tolist() == [10, 200, 10, 200]


def test_resize_equals_torchvisions():
    x = torch.rand(2, 1, 50, 70)
    torch.testing.assert_close(resize(x, 24), tv.resize(x, [24, 24], antialias=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("saturation", "turn"), [(1.0, 0.0), (0.0, 0.3), (1.4, 0.1), (0.6, -0.5), (1.0, 1.0)])
def test_color_jitter_equals_rotation_in_yiq_of_colorsys(saturation, turn):
    rng = np.random.default_rng(0)
    matrix = color_matrix(torch.tensor([saturation]), torch.tensor([turn]))[0].numpy()
    for color in rng.uniform(0.3, 0.6, (20, 3)):
        y, i, q = colorsys.rgb_to_yiq(*color)
        z = saturation * (i + 1j * q) * np.exp(2j * np.pi * turn)
        expected = colorsys.yiq_to_rgb(y, z.real, z.imag)
        assert matrix @ color == pytest.approx(expected, abs=0.006)  # its coefficients have two digits


def test_gray_equals_torchvisions_and_jitter_has_its_probability():
    images = smooth(batch=400, size=16, channels=3)
    gray = make({"color": {"gray_p": 1.0}}, View(1, 16, (1, 1)), images)
    assert (gray - tv.rgb_to_grayscale(images.float() / 255, 3)).abs().max() < 0.005
    some = make({"color": {"gray_p": 0.25}}, View(1, 16, (1, 1)), images)
    assert ((some.std(dim=1).amax(dim=(1, 2)) < 1e-3).float().mean() - 0.25).abs() < 0.07
    jittered = make({"jitter_p": 0.8, "color": {"hue_max": 0.1, "saturation_max": 0.4}}, View(1, 16, (1, 1)), images)
    still = (jittered - images / 255).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert (still.float().mean() - 0.2).abs() < 0.07


@pytest.mark.parametrize("change", ["saturation_max", "hue_max", "gray_p"])
def test_color_jitter_of_gray_scans_raises_user_error(change):
    with pytest.raises(UserError, match="the scans are gray"):
        Augment(AugmentSettings(color={change: 0.2}), [0.5], [0.2])


def test_view_that_is_only_cropped_has_the_crops_and_flips_of_other_views_and_nothing_else():
    images = smooth(batch=8)
    every = {"flip_p": 0.5, "ratio": (0.8, 1.25), "rotate_degrees": 20, "brightness_max": 0.4, "contrast_max": 0.4,
             "gamma_max": 1.5, "blur_p": 1, "speckle_max": 0.3, "solarize_p": 1}  # fmt: skip
    cropped = make(every, View(2, 32, (0.2, 1), crop_only=True), images)
    expected = make({"flip_p": 0.5, "ratio": (0.8, 1.25)}, View(2, 32, (0.2, 1)), images)
    torch.testing.assert_close(cropped, expected, rtol=0, atol=1.1e-4)  # other views are clamped at 1e-4
    assert not torch.allclose(cropped, make(every, View(2, 32, (0.2, 1)), images), atol=0.1)
