"""Retina localization in a B-scan, and a crop window around it that keeps the vitreous above.

Partially and fully attached vitreous face and vitreous debris are visible above the retina: a tight crop removes the
evidence. So at least 400 µm stay above and 200 µm below, in units of the usual 1.92 mm deep scan.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

ABOVE, BELOW = 0.21, 0.11  # of the height: 400 and 210 of 1920 µm
HEIGHT = 0.70  # of the height; one window height for most scans, so that one pixel means the same in all
WHITE = 245
WHITE_FRAME = 128  # no column of tissue is as bright from top to bottom, so a frame's blurred edge goes too


def retina_box(gray: np.ndarray) -> tuple[int, int, int, int]:
    """Return the crop box (top, left, height, width) of a B-scan: the retina's window, without a plot's white frame.

    Args:
        gray: uint8 [H, W], vitreous up.
    """
    rows, columns = (_inside((gray < WHITE_FRAME).mean(axis=axis) > 0.01) for axis in (1, 0))
    top, bottom = retina_window(gray[rows, columns])
    return rows.start + top, columns.start, bottom - top, columns.stop - columns.start


def _inside(some: np.ndarray) -> slice:
    """Return the slice from the first True to the last; everything if there is none."""
    where = np.flatnonzero(some)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, len(some))


def retina_window(gray: np.ndarray) -> tuple[int, int]:
    """Return the first row, and the row after the last, of the crop window; the whole image if no retina is found.

    Args:
        gray: uint8 [H, W], vitreous up.
    """
    height = gray.shape[0]
    found = find_retina(gray)
    if found is None:
        return 0, height
    top, bottom = found[0] - ABOVE * height, found[1] + BELOW * height
    spare = max(HEIGHT * height - (bottom - top), 0.0)
    top, bottom = top - spare / 2, bottom + spare / 2
    if top < 0:  # moves the window rather than shrinking it
        top, bottom = 0.0, bottom - top
    if bottom > height:
        top, bottom = max(top - (bottom - height), 0.0), float(height)
    return int(np.floor(top)), min(int(np.ceil(bottom)), height)


def find_retina(gray: np.ndarray) -> tuple[float, float] | None:
    """Return the top and bottom row of the bright band over nearly all columns; None if there is no such band."""
    height = len(gray)
    shrink = max(1, height // 124)
    small = np.asarray(Image.fromarray(gray).reduce(shrink), dtype=np.float32)
    fill = _white_fill(small)
    if fill.mean() > 0.9:
        return None
    smooth = ndimage.gaussian_filter(np.where(fill, np.percentile(small[~fill], 20), small), (1.5, 2.5))
    tissue = smooth > _otsu(smooth[~fill])
    labels, count = ndimage.label(tissue & ~fill)
    if not count:
        return None
    areas = np.bincount(labels.ravel())[1:]
    # Shadows of vessels may cut the band in pieces; specks of debris are far smaller than any of them.
    band = np.isin(labels, 1 + np.flatnonzero(areas >= 0.2 * areas.max()))
    columns = band.any(axis=0)
    if columns.mean() < 0.3 * (~fill).any(axis=0).mean():
        return None
    first = band.argmax(axis=0)[columns]
    last = (len(band) - band[::-1].argmax(axis=0))[columns]
    top, bottom = np.percentile(first, 2), np.percentile(last, 98)
    return float(top * shrink), float(min(bottom * shrink, height))


def _white_fill(small: np.ndarray) -> np.ndarray:
    """Return the mask of white regions at the border (registration fill, plot margins): bool [h, w], dilated."""
    labels, _ = ndimage.label(small >= WHITE)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    fill = np.isin(labels, edge[edge > 0])
    # A bright retina may reach the border too, but as a thin band: fill covers a deep block of its columns.
    around = np.pad(fill, 5, constant_values=True)
    fill &= ndimage.binary_opening(around, np.ones((5, 5)))[5:-5, 5:-5]
    return np.asarray(ndimage.binary_dilation(fill, iterations=2))


def _otsu(values: np.ndarray) -> float:
    """Return the threshold between dark and bright by Otsu's method (1979)."""
    counts, edges = np.histogram(values, 128)
    level = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * level)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(level[int(np.nanargmax(np.where(above > 0, between, -1)))])
