"""Masks from maps: the mass that is kept, small blobs, and what becomes of both at the size of the image."""

import inspect

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.morphology import remove_small_objects

from octdino.explain.regions import Maps, mass_before, without_blobs

VALUES = npst.arrays(np.float32, (2, 3, 4), elements=st.floats(-1, 1, width=16))


def naive_mass(values: np.ndarray, mass: float) -> np.ndarray:
    """The largest values one by one until they hold the share."""
    flat = np.maximum(values.astype(np.float64).ravel(), 0)
    kept, total = np.zeros(flat.size, bool), 0.0
    for cell in np.argsort(-flat, kind="stable"):
        if flat[cell] <= 0 or total / flat.sum() >= mass:
            break
        kept[cell] = True
        total += flat[cell]
    return kept.reshape(values.shape)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([0.1, 0.33, 0.6, 0.95, 1.0]))
def test_the_mass_is_what_a_loop_keeps(values: np.ndarray, mass: float) -> None:
    found = (mass_before(torch.from_numpy(values)) < mass).numpy()
    for one, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(one, naive_mass(expected, mass))


def test_the_mass_is_dinos() -> None:
    """The lines of facebookresearch/dino's visualize_attention.py."""
    torch.manual_seed(0)
    attentions = torch.rand(6, 14 * 14)
    val, idx = torch.sort(attentions)
    val /= torch.sum(val, dim=1, keepdim=True)
    theirs = torch.cumsum(val, dim=1) > (1 - 0.6)
    idx2 = torch.argsort(idx)
    for head in range(6):
        theirs[head] = theirs[head][idx2[head]]
    assert torch.equal(mass_before(attentions.view(6, 14, 14)) < 0.6, theirs.view(6, 14, 14))


@settings(max_examples=40, deadline=None)
@given(npst.arrays(bool, (2, 3, 9, 11)), st.sampled_from([0.0, 0.02, 0.05, 0.2]))
def test_small_blobs_go_as_in_scikit_image(masks: np.ndarray, share: float) -> None:
    found = without_blobs(torch.from_numpy(masks), share).numpy()
    smallest = int(np.ceil(share * 99))
    new = "max_size" in inspect.signature(remove_small_objects).parameters  # scikit-image 0.26: up to which, inclusive
    limit = {"max_size": max(smallest - 1, 0)} if new else {"min_size": smallest}
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(found[index], remove_small_objects(masks[index], connectivity=1, **limit))


def test_blobs_of_one_image_do_not_touch_those_of_the_next() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 0, :2] = True
    assert not without_blobs(masks, 3 / 16).any()
    assert torch.equal(without_blobs(masks[0], 2 / 16), masks[0])


def test_cells_stay_cells() -> None:
    """Patches are chosen before they are enlarged, so a mask ends where a patch ends."""
    torch.manual_seed(0)
    maps = Maps("attention", torch.rand(2, 3, 4, 4), (32, 24), smooth=False)
    masks = maps.masks(0.6)
    assert masks.shape == (2, 3, 32, 24)
    cells = masks.view(2, 3, 4, 8, 4, 6)
    assert torch.equal(cells.all(5).all(3), cells.any(5).any(3))
    assert torch.equal(cells.any(5).any(3), mass_before(maps.native) < 0.6)
    assert torch.equal(maps.before() < 0.6, masks)
    assert torch.equal(maps.masks(0.6, 0.2), maps.masks(0.6) & maps.masks(0.6, 0.2))


def test_smooth_maps_are_cut_by_pixels() -> None:
    maps = Maps("cam", torch.rand(1, 2, 3, 3), (30, 30), smooth=True)
    pixels = maps.pixels().double()
    held = (pixels * maps.masks(0.6)).sum((2, 3)) / pixels.sum((2, 3))
    assert ((held >= 0.6) & (held < 0.605)).all()
    assert torch.equal(maps.maximum().native[:, 0], maps.native.amax(1))
    assert maps.take(torch.tensor([0, 0]), torch.tensor([1, 0])).native.shape == (2, 1, 3, 3)
