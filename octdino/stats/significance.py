"""Significance of a paired difference of two arms: the adjusted p decides (Holm), the interval alone does not."""

from typing import Literal

import numpy as np

Outcome = Literal["better", "worse", "open"]


def alpha(confidence: float) -> float:
    """Return the significance level for intervals of this confidence: 0.05 for 0.95, without float residue."""
    return round(1 - confidence, 12)


def outcome(difference: float, p_adjusted: float, confidence: float) -> Outcome:
    """Return better or worse where the adjusted p is below 1 - confidence, else open; a missing p (NaN) is open.

    Args:
        difference: arm minus reference in a metric of which more is better.
        p_adjusted: its p, adjusted for the number of comparisons (Holm).
        confidence: of the intervals, `evaluate.confidence`.
    """
    if not p_adjusted < alpha(confidence):
        return "open"
    return "better" if difference > 0 else "worse" if difference < 0 else "open"


def least_adjusted_p(comparisons: int, resamples: int) -> float:
    """Return the smallest adjusted p (Holm) of a family of `comparisons` with `resamples` bootstrap resamples."""
    return min(1.0, comparisons * 2 / (resamples + 1))


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values of one family [K] (Holm 1979); NaN is no test and stays NaN.

    statsmodels' `multipletests` gives the same, but collects garbage on every call: 0.1 s each.
    """
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
