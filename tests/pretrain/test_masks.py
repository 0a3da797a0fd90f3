"""Masks of DINOv2: shares, blocks, and randomness."""

import math

import pytest
import torch

from octdino.pretrain.methods.dinov2 import BLOCKS, _add, random_blocks, sample_masks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("grid", [(14, 14), (6, 6), (4, 4), (5, 9)])
@pytest.mark.parametrize("ratios", [(0.1, 0.5), (0.3, 0.3), (0.01, 0.02), (0.9, 1.0)])
def test_masked_shares_of_images_and_patches_are_within_settings(grid, ratios):
    mask = sample_masks(40, grid, 0.5, ratios, generator())
    patches = grid[0] * grid[1]
    assert mask.shape == (40, patches)
    assert mask.dtype == torch.bool
    hidden = mask.sum(1)
    chosen = hidden[hidden > 0]
    assert len(chosen) == 20
    assert (chosen >= ratios[0] * patches).all()
    assert (chosen < ratios[1] * patches + 1).all()
    if ratios == (0.1, 0.5) and patches > 100:  # one image per stratum of ratios
        low, high = (0.1 * patches, 0.5 * patches)
        expected = low + (high - low) * (torch.arange(20) + 0.5) / 20
        assert (chosen.sort()[0] - expected).abs().max() < (high - low) / 40 + 1


def test_masks_are_a_function_of_the_generator():
    first, again, other = (sample_masks(12, (14, 14), 0.5, (0.1, 0.5), generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_image_and_patch_can_be_masked():
    masks = torch.stack([sample_masks(4, (6, 6), 0.5, (0.1, 0.5), generator(seed)) for seed in range(60)])
    assert masks.any((0, 2)).all()
    share = masks.float().mean((0, 1))
    assert share.min() > 0.03
    assert share.max() < 0.35


@pytest.mark.parametrize(("count", "probability", "chosen"), [(1, 0.1, 1), (2, 0.5, 1), (3, 1.0, 3), (10, 0.2, 2)])
def test_at_least_one_image_is_masked(count, probability, chosen):
    mask = sample_masks(count, (4, 4), probability, (0.1, 0.5), generator())
    assert mask.any(1).sum() == chosen


def test_masks_are_blocks_and_not_scattered_patches():
    """A masked patch's neighbor is masked far more often than the mask's share."""
    mask = sample_masks(200, (14, 14), 1.0, (0.3, 0.3), generator()).view(-1, 14, 14)
    beside = (mask[:, :, 1:] & mask[:, :, :-1]).sum() / mask[:, :, 1:].sum()
    assert beside > 0.75
    scattered = sample_masks(200, (14, 14), 1.0, (0.3, 0.3), generator()).flatten(1)
    scattered = scattered[:, torch.randperm(196, generator=generator())].view(-1, 14, 14)
    assert (scattered[:, :, 1:] & scattered[:, :, :-1]).sum() / scattered[:, :, 1:].sum() < 0.35


def test_blocks_are_rectangles_of_the_wanted_area_and_aspect():
    uniform = torch.rand(4, 500, generator=generator())
    left = torch.full((500,), 40)
    blocks = random_blocks(uniform, (30, 30), left).view(500, 30, 30)
    height, width = blocks.any(2).sum(1), blocks.any(1).sum(1)
    assert torch.equal(blocks.sum((1, 2)), height * width)
    area = (4 + uniform[0] * 36).sqrt()
    aspect = (height / width).log().abs()
    assert ((height * width).sqrt() - area).abs().max() < 1
    assert aspect.max() < math.log(1 / 0.3) + math.log(2)  # rounding to whole patches
    assert (height > width).any()
    assert (width > height).any()


def test_blocks_reach_the_target_nearly_always_before_single_patches_fill_up():
    target = torch.full((300,), 98)
    filled = torch.zeros(300, 196, dtype=torch.bool)
    for uniform in torch.rand(BLOCKS, 4, 300, generator=generator()):
        filled = _add(filled, target, random_blocks(uniform, (14, 14), target - filled.sum(1)))
        assert (filled.sum(1) <= target).all()
    assert (target - filled.sum(1)).float().mean() < 2
