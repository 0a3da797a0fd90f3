"""Speckle and noise fields, made once per process and cropped at random for each scan.

OCT speckle is multiplicative in linear intensity; after averaging it is Gamma distributed and correlated by the point
spread function (measured on Spectralis scans: lag-1 correlation .7 along depth, .35 to .85 across). Drawing 250,000
Gamma variates per scan would cost more than everything else, so each scan takes a random window, upside down at
random, of larger fields that depend on the cohort's seed only.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import gammaincinv, ndtr

from octdino.phantom.anatomy import HEIGHT, WIDTH
from octdino.phantom.random_streams import stream

Field = NDArray[np.float32]

GRAY_PER_NEPER = 30.78  # gray levels per unit of ln intensity: g = (ln(I + 2.44e-4) + 8.3) / 8.285, times 255
SIDE = 832
LOOKS = 5.0  # effective number of averaged looks of the fields as made


@dataclass(frozen=True)
class NoiseFields:
    """Fields [832, 832]. Speckle is in gray levels (GRAY_PER_NEPER · ln Gamma, mean intensity 1)."""

    speckle: tuple[Field, ...]  # fine to coarse grain
    floor: tuple[Field, ...]  # noise intensity, mean 1, Gamma with 2 looks
    mottle: Field  # standard normal, long across: texture within layers
    clouds: Field  # standard normal blobs: choroidal vessels


@lru_cache(maxsize=2)
def noise_fields(seed: int) -> NoiseFields:
    """Return the speckle and noise fields of a cohort, by its seed."""
    rng = stream(seed, "speckle")
    grains = [(0.75, 0.55), (0.85, 0.85), (0.95, 1.25)]
    return NoiseFields(
        speckle=tuple(_gamma(_smooth(rng, *grain), LOOKS, log=True) for grain in grains),
        floor=tuple(_gamma(_smooth(rng, 0.75, sigma), 1.6, log=False) for sigma in (0.5, 0.6)),
        mottle=_smooth(rng, 1.6, 7.0),
        clouds=_smooth(rng, 7.0, 9.0),
    )


def _smooth(rng: np.random.Generator, axial: float, lateral: float) -> Field:
    field = gaussian_filter(rng.standard_normal((SIDE, SIDE), np.float32), (axial, lateral), mode="wrap", truncate=3)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def _gamma(field: Field, looks: float, log: bool) -> Field:
    """A standard normal field as a Gamma one of mean 1 (through its quantiles)."""
    grid = np.linspace(-5.5, 5.5, 2001)
    gamma = gammaincinv(looks, ndtr(grid)) / looks
    values = GRAY_PER_NEPER * np.log(np.maximum(gamma, 1e-6)) if log else gamma
    return np.asarray(np.interp(field, grid, values), np.float32)


def random_window(rng: np.random.Generator, field: Field, height: int = HEIGHT, width: int = WIDTH) -> Field:
    """Return a random window of a field, flipped vertically at random: a view, not to be written to."""
    row, column = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
    view = field[row : row + height, column : column + width]
    return view[:: rng.choice([-1, 1])]
