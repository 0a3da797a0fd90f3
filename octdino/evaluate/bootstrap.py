"""Resampling patients: draws, percentile intervals, paired p-values, Holm's correction.

Scans of a patient resemble each other, so the patient is what is drawn; intervals from single scans would be several
times too narrow (Field & Welsh 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x; Ying et al. 2022 for eyes).
"""

import warnings

import numpy as np


def draw_patients(patients: int, resamples: int, seed: int) -> np.ndarray:
    """How many times each patient is drawn: float64 [P, 1 + B]; column 0 is the test set itself, once each."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return np.concatenate([np.ones((1, patients)), drawn]).T.copy()


def interval(replicates: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over axis 0, NaN replicates left out: low and high, NaN where all are NaN."""
    tail = (1 - confidence) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "All-NaN slice": the answer is NaN, as it should be
        low, high = np.nanquantile(replicates, [tail, 1 - tail], axis=0)
    return low, high


def p_value(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of "no difference" from paired replicates over axis 0, NaN left out; never below 2 / (B + 1).

    The share of replicates on the far side of 0, each side counted with the observed one added (Davison & Hinkley
    1997, sec. 4.2.3), doubled.
    """
    known = np.isfinite(differences).sum(axis=0)
    with np.errstate(invalid="ignore"):
        beyond = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.where(known > 0, np.minimum(1.0, 2 * (1 + beyond) / (1 + known)), np.nan)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values of one family [K] (Holm 1979); NaN is no test and stays NaN.

    statsmodels' `multipletests` gives the same, but collects garbage on every call: 0.1 s each.
    """
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
