"""Image quality without a reference: the range of gray values over the noise."""

import numpy as np
from scipy.ndimage import convolve

from octdino.data.cohort_reader import Cohort

# The difference of two Laplacians, blind to planes and most edges: Immerkaer 1996, "Fast noise variance estimation".
MASK = np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])
BLOCK = 512  # images in memory at once


def noise(image: np.ndarray) -> float:
    """Return the standard deviation of the noise in gray levels, of one image [H, W] (Immerkaer 1996, eq. 5)."""
    inner = convolve(image.astype(np.float64), MASK)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(inner).mean())


def quality(image: np.ndarray) -> float:
    """Return the range of gray values over the noise, of one image uint8 [C, H, W], channels averaged.

    The range is the 99th minus the 1st percentile. Of the stored image, after resizing: it ranks the scans of one
    cohort and does not compare cohorts or devices.
    """
    gray = image.mean(axis=0)
    low, high = np.percentile(gray, [1, 99])
    return float((high - low) / max(noise(gray), 1e-3))


def image_qualities(cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    """Return the image quality of the scans `rows` (ascending positions in the manifest), float64 [n].

    Raises:
        UserError: see `Cohort.images`.
    """
    found = [quality(image) for part in _parts(rows) for image in cohort.images(part)]
    return np.array(found, dtype=np.float64)


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
