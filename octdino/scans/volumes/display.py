"""Reflectivity of Heidelberg's raw exports as gray levels, as HEYEX shows them."""

import numpy as np

from octdino.scans.image_files import ImageError

INVALID = 3.0e38  # raw exports write FLT_MAX where registration left no data


def fourth_root(reflectivity: np.ndarray) -> np.ndarray:
    """Return gray levels uint8 of reflectivity float [H, W] in [0, 1]: 255 x^(1/4), 0 where there is no data.

    Heidelberg's description of the raw export names this as its display.

    Raises:
        ImageError: NaN, infinite or negative reflectivity.
    """
    empty = reflectivity >= INVALID
    if not np.isfinite(reflectivity).all() or (reflectivity < 0).any():
        raise ImageError("NaN, infinite or negative reflectivity; expected 0 to 1")
    shown = np.sqrt(np.sqrt(np.where(empty, 0, np.minimum(reflectivity, 1))))
    gray: np.ndarray = np.rint(shown * 255).astype(np.uint8)
    return gray
