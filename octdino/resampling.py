"""Resampling patients: the draws, percentile intervals, and means over scans under each draw.

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


def resampled_means(values: np.ndarray, patient: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Means over scans under each draw, NaN left out: float64 [1 + B, M]; NaN where a draw has no value.

    Args:
        values: [N, M], one row a scan.
        patient: int [N], below P.
        times: [P, 1 + B], of `draw_patients`.
    """
    known = np.isfinite(values)
    sums, counts = (np.zeros((len(times), values.shape[1])) for _ in range(2))
    np.add.at(sums, patient, np.where(known, values, 0))
    np.add.at(counts, patient, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: np.ndarray = (times.T @ sums) / (times.T @ counts)
    return means
