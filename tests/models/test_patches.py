"""Pixels in patch order and sine-cosine positions, compared with lightly, with loops and with the formula."""

import math

import numpy as np
import pytest
import torch
from lightly.models import utils as lightly

from octdino.models.patches import patchify, sin_cos_positions, unpatchify


def images(channels=1, height=32, width=32):
    return torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_equal_lightly_and_are_put_together_again(channels):
    given = images(channels)
    patches = patchify(given, (8, 8))
    assert patches.shape == (3, 16, 64 * channels)
    assert torch.equal(patches, lightly.patchify(given, 8))
    assert torch.equal(unpatchify(patches, (8, 8), (4, 4)), given)
    assert torch.equal(lightly.unpatchify(patches, 8, channels), given)


@pytest.mark.parametrize("patch", [(4, 8), (8, 4)])
def test_oblong_patches_and_images_are_row_by_row(patch):
    given = images(2, 16, 24)
    rows, columns = 16 // patch[0], 24 // patch[1]
    patches = patchify(given, patch)
    for index in range(rows * columns):
        row, column = index // columns, index % columns
        for place in range(patch[0] * patch[1]):
            y, x = row * patch[0] + place // patch[1], column * patch[1] + place % patch[1]
            assert torch.equal(patches[:, index, 2 * place : 2 * place + 2], given[:, :, y, x])
    assert torch.equal(unpatchify(patches, patch, (rows, columns)), given)


def test_positions_of_square_grids_equal_lightly():
    expected = lightly.get_2d_sine_cosine_positional_embedding(48, 7, cls_token=False)
    np.testing.assert_allclose(sin_cos_positions((7, 7), 48).numpy(), expected, atol=1e-6)


def test_positions_are_sines_and_cosines_of_column_and_row():
    dim, found = 16, sin_cos_positions((3, 5), 16)
    assert found.shape == (15, dim)
    for row in range(3):
        for column in range(5):
            expected = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (index / (dim / 4)) for index in range(dim // 4)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            assert found[row * 5 + column].tolist() == pytest.approx(expected, abs=1e-6)
