"""How good a picture is, in one number that needs no reference: its range of grey over its noise."""

import numpy as np
from scipy.ndimage import convolve

from octdino.data.cohort_reader import Cohort

# The difference of two Laplacians, blind to planes and most edges: Immerkaer 1996, "Fast noise variance estimation".
MASK = np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])
BLOCK = 512  # images in memory at once


def noise(image: np.ndarray) -> float:
    """Standard deviation of the noise in grey levels, of one image [H, W] (Immerkaer 1996, eq. 5)."""
    inner = convolve(image.astype(np.float64), MASK)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(inner).mean())


def quality(image: np.ndarray) -> float:
    """99th minus 1st percentile of grey, over the noise; of one image uint8 [C, H, W], channels averaged.

    As stored, after resizing: good for ranking the scans of one cohort, not for comparing cohorts or devices.
    """
    grey = image.mean(axis=0)
    low, high = np.percentile(grey, [1, 99])
    return float((high - low) / max(noise(grey), 1e-3))


def qualities(cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    """Of the scans `rows` (ascending positions in the manifest), float64 [n].

    Raises:
        UserError: see `Cohort.images`.
    """
    found = [quality(image) for part in _parts(rows) for image in cohort.images(part)]
    return np.array(found, dtype=np.float64)


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
