"""Colors, and places of names and panels, of all figures."""

import numpy as np
import pytest

from octdino.plotting import FIXED, POOL, arm_styles, grid_shape, shortened, spread, wide_enough

# Machado, Oliveira & Fernandes 2009, severity 1; for linear RGB.
BLINDNESS = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039],
    ],
}  # fmt: skip


def oklab(linear: np.ndarray) -> np.ndarray:
    """Oklab (Ottosson 2020) of linear RGB: distances are about as large as they look."""
    lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    lms.append([0.0883024619, 0.2817188376, 0.6299787005])
    out = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    out.append([0.0259040371, 0.7827717662, -0.8086757660])
    found: np.ndarray = np.array(out) @ np.cbrt(np.array(lms) @ np.clip(linear, 0, 1))
    return found


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    found: np.ndarray = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return found


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colors_of_arms_differ_to_color_blind_readers(kind: str) -> None:
    """0.05 in Oklab; Okabe and Ito's colors at medium lightness came to 0.008 in deuteranopia."""
    seen = {color: oklab(np.array(BLINDNESS[kind]) @ linear(color)) for color in (*POOL, *FIXED.values())}
    nearest = min(
        (float(np.linalg.norm(a - b)), one, other)
        for one, a in seen.items()
        for other, b in seen.items()
        if one < other
    )
    assert nearest[0] > 0.05, nearest


def test_inits_beyond_the_colors_have_other_markers() -> None:
    found = arm_styles([f"method{index:02d}-{mode}" for index in range(21) for mode in ("linear", "finetune")])
    looks = {(style.color, style.marker, style.dash) for style in found.values()}
    assert len(looks) == len(found) == 42


@pytest.mark.parametrize(
    ("panels", "shape"),
    [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (1, 4)), (5, (2, 3)), (6, (2, 3)), (7, (2, 4)), (8, (2, 4)),
     (9, (3, 3)), (11, (4, 3)), (16, (4, 4))],
)  # fmt: skip
def test_panels_fill_their_grid(panels: int, shape: tuple[int, int]) -> None:
    assert grid_shape(panels) == shape


def test_names_keep_their_order_and_distance_and_stay_near() -> None:
    assert spread([1.0, 5.0], 1.0, 0.0, 10.0) == [1.0, 5.0]
    assert spread([5.0, 5.0, 5.0], 1.0, 0.0, 10.0) == [4.0, 5.0, 6.0]
    assert spread([9.9, 9.8], 1.0, 0.0, 10.0) == [10.0, 9.0]
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 10, 20)
    found = np.array(spread(list(places), 0.5, 0.0, 10.0))
    order = np.argsort(places)
    assert (np.diff(found[order]) >= 0.5 - 1e-9).all()
    assert found.min() >= -1e-9
    assert found.max() <= 10 + 1e-9


def test_axes_span_enough_for_small_differences_to_look_small() -> None:
    low, high = wide_enough(0.80, 0.81, 0.1, ceiling=1.015)
    assert (low, high) == pytest.approx((0.755, 0.855))
    assert wide_enough(0.9, 1.0, 0.1, ceiling=1.002)[1] == 1.002


def test_long_names_lose_their_middle() -> None:
    assert shortened("dino-linear") == "dino-linear"
    name = shortened("supcon_bcva_and_cst_with_eyes-finetune")
    assert len(name) == 30
    assert name.endswith("-finetune")
