"""Calibration metrics in every bootstrap resample: Brier score, calibration error, calibration slope and intercept.

As in `metrics`, `resample_weights` [P, B] holds how often each patient is sampled.
"""

import numpy as np
from scipy.special import expit

from octdino.stats.calibration import logit

STEPS, SETTLED = 60, 1e-12  # Newton's


def brier(truth: np.ndarray, p: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of probability and truth, float64 [B] (Brier 1950).

    Args:
        truth: bool [N]; p: float64 [N].
        patient: int [N], below P; resample_weights: float64 [P, B].
    """
    return _mean((p - truth) ** 2, patient, resample_weights)


def prevalence(truth: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray) -> np.ndarray:
    """Return the share of positive scans, float64 [B]: the average precision of chance."""
    return _mean(truth.astype(np.float64), patient, resample_weights)


def _mean(values: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray) -> np.ndarray:
    sums, counts = (
        np.bincount(patient, weights, minlength=len(resample_weights)) @ resample_weights for weights in (values, None)
    )
    with np.errstate(invalid="ignore"):
        found: np.ndarray = sums / counts
    return found


def bins_of(p: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each scan, int [N], of `bins` bins of equal mass; as scikit-learn's `quantile` strategy."""
    edges = np.percentile(p, np.linspace(0, 100, bins + 1)[1:-1])
    found: np.ndarray = np.searchsorted(edges, p)
    return found


def calibration_error(
    truth: np.ndarray, p: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray, bins: int
) -> np.ndarray:
    """Return the expected calibration error, float64 [B]: mean of |share positive - mean probability| over bins.

    Bins of equal mass (Nguyen & O'Connor 2015, https://arxiv.org/abs/1508.05154), cut once on the test set. With few
    scans it is above 0 for perfect probabilities, too, and in resamples more so.
    """
    gap = np.zeros((len(resample_weights), bins))
    np.add.at(gap, (patient, bins_of(p, bins)), truth - p)
    scans = np.bincount(patient, minlength=len(resample_weights)) @ resample_weights
    with np.errstate(invalid="ignore"):
        found: np.ndarray = np.abs(resample_weights.T @ gap).sum(1) / scans
    return found


def slope_and_intercept(
    truth: np.ndarray, p: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return calibration slope and intercept, two float64 [B] (Van Calster 2019, https://doi.org/10.1186/s12916-019-1466-7).

    The slope is that of a logistic regression of the truth on the logit: below 1 probabilities are too extreme. The
    intercept is fitted with the slope fixed at 1: above 0 they are too low on average. Both are exact where every
    patient is sampled once; elsewhere one Newton step from there (the one-step bootstrap of Moulton & Zeger 1991,
    "Bootstrapping generalized linear models"), which stays finite where a resample happens to be separable.

    Returns:
        NaN slopes where scores separate the classes: there is none.
    """
    x = logit(p)
    design = np.stack([np.ones_like(x), x])
    slope = _one_step(truth, design, np.zeros_like(x), patient, resample_weights)[1]
    intercept = _one_step(truth, design[:1], x, patient, resample_weights)[0]
    return slope, intercept


def _one_step(
    truth: np.ndarray, design: np.ndarray, offset: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray
) -> np.ndarray:
    """Return the coefficients [K, B] of a logistic regression on `design` [K, N]."""
    size = len(design)
    nothing = np.full((size, resample_weights.shape[1]), np.nan)
    fitted = _newton(truth, design, offset)
    if fitted is None:
        return nothing
    mean = expit(offset + fitted @ design)
    score, information = np.zeros((len(resample_weights), size)), np.zeros((len(resample_weights), size * size))
    np.add.at(score, patient, ((truth - mean) * design).T)
    products = (design[:, None] * design[None] * (mean * (1 - mean))).reshape(size * size, -1)
    np.add.at(information, patient, products.T)
    left = (resample_weights.T @ information).reshape(-1, size, size)
    right = resample_weights.T @ score
    determinant = np.linalg.det(left)
    solvable = determinant > 1e-9 * np.median(determinant)
    nothing[:, solvable] = (fitted + np.linalg.solve(left[solvable], right[solvable][:, :, None])[:, :, 0]).T
    return nothing


def _newton(truth: np.ndarray, design: np.ndarray, offset: np.ndarray) -> np.ndarray | None:
    """Return the maximum-likelihood coefficients [K]; None where there are none."""
    found = np.zeros(len(design))
    for _ in range(STEPS):
        mean = expit(offset + found @ design)
        information = (design * (mean * (1 - mean))) @ design.T
        if np.linalg.cond(information) > 1e14:
            return None  # scores that separate the classes, or are all the same
        step = np.linalg.solve(information, design @ (truth - mean))
        # A long step is shortened, so that no logit moves by more than 4: Newton's method may overshoot.
        step /= max(1.0, float(np.abs(step @ design).max()) / 4)
        found = found + step
        if np.abs(step).max() < SETTLED * max(1.0, float(np.abs(found).max())):
            return found
    return None
