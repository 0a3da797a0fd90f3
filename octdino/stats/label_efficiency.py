"""Label efficiency: how many labeled patients a reference curve needs to reach a score, without extrapolation.

The curve is made monotone by isotonic regression (more labels do not lower the expected score; a fall is noise of the
test set or of training) and interpolated by monotone cubics (PCHIP, Fritsch & Butland 1984,
https://doi.org/10.1137/0905021) over the logarithm of the number of patients. Learning curves are concave in it:
straight lines between distant fractions lie below the curve, and would count too many patients for the reference.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

GRID = 257  # points, and the fractions themselves, of the curve between its smallest and largest number of patients
SHOWN = 0.1  # share of the labeled patients at which figure and page read the curve
BEYOND = 1e-6  # in log patients: how far outside the curve a censored number is stored

Bound = Literal["equal", "more than", "fewer than"]


class Patients(NamedTuple):
    """A number of patients; with another `bound` than equal it is more or fewer than this end of the curve."""

    number: float
    bound: Bound


def isotonic(curve: np.ndarray) -> np.ndarray:
    """Return the nearest non-decreasing curves (least squares) over axis 0, float64 [F, C].

    By the minimax formula (Robertson, Wright & Dykstra 1988): of the means that begin at or before a point and end at
    or after it, the largest over beginnings of the smallest over ends.
    """
    points = len(curve)
    sums = np.concatenate([np.zeros((1, *curve.shape[1:])), np.cumsum(curve, axis=0)])
    found = np.full(curve.shape, -np.inf)
    for first in range(points):
        means = [(sums[end + 1] - sums[first]) / (end + 1 - first) for end in range(first, points)]
        smallest = np.minimum.accumulate(means[::-1], axis=0)[::-1]  # over ends at or after each point
        found[first:] = np.maximum(found[first:], smallest)
    return found


def monotone_curve(patients: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of log patients [G] and the interpolated, non-decreasing curves on it [G, C].

    Args:
        patients: [F] labeled patients, at least two of them different; the scores of equal numbers are averaged.
        curve: [F, C], finite.
    """
    from scipy.interpolate import PchipInterpolator  # 0.1 s, which the report does without

    numbers = np.unique(patients)
    rising = isotonic(np.stack([curve[patients == number].mean(axis=0) for number in numbers]))
    places = np.log(numbers)
    grid = np.union1d(np.linspace(places[0], places[-1], GRID), places)
    values = np.maximum.accumulate(PchipInterpolator(places, rising, axis=0)(grid), axis=0)
    values[[0, -1]] = rising[[0, -1]]
    return grid, values


def shown_fraction(fractions: Iterable[float]) -> float:
    """Return the fraction nearest to `SHOWN`, by ratio; of two equally near the smaller."""
    return min(sorted(fractions), key=lambda fraction: abs(math.log(fraction / SHOWN)))


def log_patients_needed(patients: np.ndarray, curve: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the logarithm of the number of patients at which the curve reaches the score, float64 [C].

    Args:
        patients: [F], see `monotone_curve`.
        curve: [F, C], the reference's score with so many patients in each resample.
        score: [C], the score to reach in the same resamples.

    Returns:
        NaN where a score is NaN; `BEYOND` above the logarithm of the largest number where the curve does not reach the
        score, and as far below the smallest where all of the curve is above it.
    """
    unknown = ~np.isfinite(curve).all(axis=0) | ~np.isfinite(score)
    grid, values = monotone_curve(patients, np.where(unknown, 0.0, curve))
    below = (values < score).sum(axis=0)  # the curve reaches the score between grid points below - 1 and below
    right = np.clip(below, 1, len(grid) - 1)
    low, high = (np.take_along_axis(values, place[None], axis=0)[0] for place in (right - 1, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(np.nan_to_num((score - low) / (high - low)), 0, 1)
    needed = grid[right - 1] + share * (grid[right] - grid[right - 1])
    needed = np.where(score < values[0], grid[0] - BEYOND, np.where(below == 0, grid[0], needed))
    needed = np.where(below == len(grid), grid[-1] + BEYOND, needed)
    found: np.ndarray = np.where(unknown, np.nan, needed)
    return found


def as_patients(log_number: float, patients: np.ndarray) -> Patients:
    """Return a logarithm by `log_patients_needed`, or a quantile of such, as a number and whether it is censored."""
    least, most = float(np.min(patients)), float(np.max(patients))
    if log_number > math.log(most) + BEYOND / 2:
        return Patients(most, "more than")
    if log_number < math.log(least) - BEYOND / 2:
        return Patients(least, "fewer than")
    return Patients(min(max(math.exp(log_number), least), most), "equal")
