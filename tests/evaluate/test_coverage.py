"""Do 95 % intervals hold the truth in 95 % of studies? Simulated patients whose scans resemble each other.

A scan is positive or not, its score is normal around `SHIFT` or 0, and each patient moves all their scores by a normal
amount of their own. So the AUROC of a positive and a negative scan of two patients is known in closed form.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from octdino.evaluate.bootstrap import p_value
from octdino.evaluate.metrics import ranking_metrics
from octdino.resampling import bca_interval, draw_patients, draw_seeds, interval, leave_out

SHIFT, OWN, SCANS, STUDIES, RESAMPLES = 1.2, 0.6, 12, 1000, 600
PATIENTS = 60

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
    low, high = interval(values[1 : 1 + RESAMPLES], 0.95)
    return float(low), float(high)


def bca(values: np.ndarray, patients: int) -> Interval:
    low, high = bca_interval(values[1 : 1 + RESAMPLES], values[0], values[1 + RESAMPLES :], 0.95)
    return float(low), float(high)


def columns(patients: int, seed: int) -> np.ndarray:
    return np.concatenate([draw_patients(patients, RESAMPLES, seed), leave_out(patients)], axis=1)


def share_held(one: Callable[[int], np.ndarray], truth: float, how: Callable[[np.ndarray, int], Interval]) -> float:
    """Of STUDIES studies, those whose interval holds the truth."""
    held = 0
    for number in range(STUDIES):
        low, high = how(one(number), PATIENTS)
        held += low <= truth <= high
    return held / STUDIES


@pytest.mark.slow
@pytest.mark.parametrize("how", [percentile, bca])
def test_the_interval_of_an_auroc_holds_the_truth(how: Callable[[np.ndarray, int], Interval]) -> None:
    def one(number: int) -> np.ndarray:
        truth, scores, patient = study(PATIENTS, np.random.default_rng(number))
        return ranking_metrics(truth, scores[0], patient, columns(PATIENTS, number))[0]

    share = share_held(one, truth_of(SHIFT), how)
    print(f"AUROC, {PATIENTS} patients, {how.__name__}: {100 * share:.1f} % of {STUDIES}")
    assert share == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [percentile, bca])
def test_the_interval_of_a_paired_difference_holds_the_truth(how: Callable[[np.ndarray, int], Interval]) -> None:
    """Arms that share what a patient does to them; the second sees a little more."""
    more = 0.3

    def one(number: int) -> np.ndarray:
        truth, scores, patient = study(PATIENTS, np.random.default_rng(number), arms=2)
        scores[1] += more * truth
        times = columns(PATIENTS, number)
        found = [ranking_metrics(truth, score, patient, times)[0] for score in scores]
        return found[1] - found[0]

    share = share_held(one, truth_of(SHIFT + more) - truth_of(SHIFT), how)
    print(f"difference, {PATIENTS} patients, {how.__name__}: {100 * share:.1f} % of {STUDIES}")
    assert share == pytest.approx(0.95, abs=0.02)
