"""Do 95 % intervals hold the truth in 95 % of studies? Simulated patients whose scans resemble each other.

A scan is positive or not, its score is normal around `SHIFT` or 0, and each patient moves all their scores by a normal
amount of their own. So the AUROC of a positive and a negative scan of two patients is known in closed form.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from octdino.evaluate.metrics import ranking_metrics
from octdino.stats.bootstrap import (
    bca_interval,
    corrected_confidence,
    interval,
    jackknife_weights,
    resample_patients,
    resample_seeds,
)

SHIFT, OWN, SCANS, STUDIES, RESAMPLES = 1.2, 0.6, 12, 1000, 600

Interval = tuple[float, float]


def study(patients: int, rng: np.random.Generator, arms: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth [N], scores [arms, N] and patient [N]; prevalence and number of scans differ from patient to patient."""
    patient = np.repeat(np.arange(patients), rng.integers(SCANS // 2, 2 * SCANS, patients))
    truth = rng.random(len(patient)) < rng.beta(2, 3, patients)[patient]
    common = rng.normal(0, OWN, patients)[patient]
    scores = SHIFT * truth + common + rng.normal(0, 1, (arms, len(patient)))
    return truth, scores, patient


def truth_of(shift: float) -> float:
    """AUROC of scans of two different patients."""
    return float(norm.cdf(shift / np.sqrt(2 * (1 + OWN**2))))


def percentile(values: np.ndarray, patients: int) -> Interval:
    low, high = interval(values[1 : 1 + RESAMPLES], corrected_confidence(0.95, patients))
    return float(low), float(high)


def bca(values: np.ndarray, patients: int) -> Interval:
    low, high = bca_interval(
        values[1 : 1 + RESAMPLES], values[0], values[1 + RESAMPLES :], corrected_confidence(0.95, patients)
    )
    return float(low), float(high)


def columns(patients: int, seed: int) -> np.ndarray:
    return np.concatenate([resample_patients(patients, RESAMPLES, seed), jackknife_weights(patients)], axis=1)


def shares_held(values: Callable[[int], np.ndarray], truth: float, patients: int) -> dict[str, float]:
    """Of STUDIES studies, those whose interval holds the truth, per kind of interval: both of the same replicates."""
    held = dict.fromkeys((percentile, bca), 0)
    for number in range(STUDIES):
        found = values(number)
        for how in held:
            low, high = how(found, patients)
            held[how] += low <= truth <= high
    return {how.__name__: count / STUDIES for how, count in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize("patients", [20, 60])
def test_the_interval_of_an_auroc_holds_the_truth(patients: int) -> None:
    def one(number: int) -> np.ndarray:
        truth, scores, patient = study(patients, np.random.default_rng(number))
        return ranking_metrics(truth, scores[0], patient, columns(patients, number))[0]

    shares = shares_held(one, truth_of(SHIFT), patients)
    print(f"AUROC, {patients} patients, shares of {STUDIES}: {shares}")
    assert shares == pytest.approx({"percentile": 0.95, "bca": 0.95}, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("patients", [20, 60])
def test_the_interval_of_a_paired_difference_holds_the_truth(patients: int) -> None:
    """Arms that share what a patient does to them; the second sees a little more."""
    more = 0.3

    def one(number: int) -> np.ndarray:
        truth, scores, patient = study(patients, np.random.default_rng(number), arms=2)
        scores[1] += more * truth
        times = columns(patients, number)
        found = [ranking_metrics(truth, score, patient, times)[0] for score in scores]
        return found[1] - found[0]

    shares = shares_held(one, truth_of(SHIFT + more) - truth_of(SHIFT), patients)
    print(f"difference, {patients} patients, shares of {STUDIES}: {shares}")
    assert shares == pytest.approx({"percentile": 0.95, "bca": 0.95}, abs=0.02)


@pytest.mark.slow
def test_without_patients_or_widening_the_truth_is_missed() -> None:
    """What is avoided: scans drawn one by one, and plain percentiles of few patients."""
    scans, plain = 0, 0
    for number in range(STUDIES // 4):
        truth, scores, patient = study(20, np.random.default_rng(number))
        each = np.arange(len(truth))
        low, high = interval(
            ranking_metrics(truth, scores[0], each, resample_patients(len(each), 200, number))[0], 0.95
        )
        scans += low <= truth_of(SHIFT) <= high
        low, high = interval(ranking_metrics(truth, scores[0], patient, resample_patients(20, 600, number))[0], 0.95)
        plain += low <= truth_of(SHIFT) <= high
    print(f"20 patients: scans drawn {400 * scans / STUDIES:.1f} %, plain percentiles {400 * plain / STUDIES:.1f} %")
    assert scans < plain < 0.94 * STUDIES / 4


@pytest.mark.slow
def test_intervals_over_seeds_and_patients_hold_the_truth() -> None:
    """Each seed has a skill of its own; the truth is the mean over seeds and patients."""
    spread, seeds, patients = 0.15, 5, 40
    shifts = np.random.default_rng(0).normal(SHIFT, spread, 20000)
    wanted = float(norm.cdf(shifts / np.sqrt(2 * (1 + OWN**2))).mean())
    held, fixed = 0, 0
    for number in range(STUDIES // 2):
        rng = np.random.default_rng(number)
        truth, scores, patient = study(patients, rng, arms=seeds)
        scores += rng.normal(0, spread, seeds)[:, None] * truth
        times = resample_patients(patients, RESAMPLES, number)
        found = np.stack([ranking_metrics(truth, score, patient, times)[0] for score in scores])
        for which, values in enumerate(((found * resample_seeds(seeds, RESAMPLES, number + 1)).sum(0), found.mean(0))):
            low, high = interval(values[1:], corrected_confidence(0.95, patients))
            held += (which == 0) * (low <= wanted <= high)
            fixed += (which == 1) * (low <= wanted <= high)
    print(f"{seeds} seeds: drawn too {200 * held / STUDIES:.1f} %, held fixed {200 * fixed / STUDIES:.1f} %")
    assert held * 2 / STUDIES == pytest.approx(0.95, abs=0.02)
    assert fixed < held
