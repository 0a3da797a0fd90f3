"""Paired p-values from resampled patients (`octdino.resampling`), and Holm's correction."""

import numpy as np

from octdino.resampling import expanded_p


def p_value(differences: np.ndarray, patients: int | None = None) -> np.ndarray:
    """Two-sided p of "no difference" from paired replicates over axis 0, NaN left out; never below 2 / (B + 1).

    The share of replicates on the far side of 0, each side counted with the observed one added (Davison & Hinkley
    1997, sec. 4.2.3), doubled.

    Args:
        differences: [B, ...].
        patients: how many were drawn from; then p is as much larger as intervals are wider, see `expanded_p`. Where no
            replicate lies beyond 0 it stays 2 / (B + 1): how far the tail reaches is not known.
    """
    known = np.isfinite(differences).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
        p = np.minimum(1.0, 2 * (1 + beyond) / (1 + known))
        if patients is not None:
            p = np.maximum(p, expanded_p(np.minimum(1.0, 2 * beyond / known), patients))
    return np.where(known > 0, p, np.nan)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values of one family [K] (Holm 1979); NaN is no test and stays NaN.

    statsmodels' `multipletests` gives the same, but collects garbage on every call: 0.1 s each.
    """
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
