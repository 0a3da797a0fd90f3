"""Brier, calibration error, slope and intercept against scikit-learn, statsmodels and a plain bootstrap."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from octdino.evaluate.reliability import bins_of, brier, calibration_error, prevalence, slope_and_intercept
from octdino.stats.bootstrap import resample_patients
from octdino.stats.calibration import logit
from tests.evaluate.evaluated import loop_calibration_error

Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def case() -> Case:
    """Truth, overconfident probabilities, patients (who differ) and draws."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 12)
    logits = rng.normal(0, 1.2, 720) + rng.normal(0, 0.7, 60)[patient]
    truth = rng.random(720) < expit(0.6 * logits - 0.4)
    return truth, expit(logits), patient, resample_patients(60, 300, seed=1)


def test_brier_and_prevalence_are_scikit_learns_in_every_resample(case: Case) -> None:
    truth, p, patient, times = case
    found, share = brier(*case), prevalence(truth, patient, times)
    for column in (0, 1, 299):
        weight = times[patient, column]
        assert found[column] == pytest.approx(brier_score_loss(truth, p, sample_weight=weight), abs=1e-12)
        assert share[column] == pytest.approx(np.average(truth, weights=weight), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 9], ids=["ties", "no ties"])
@pytest.mark.parametrize("scans", [720, 23], ids=["many scans", "few scans"])
def test_calibration_error_is_that_of_a_loop_over_scans(case: Case, decimals: int, scans: int) -> None:
    truth, p, patient, times = case
    truth, p = truth[:scans], np.round(p[:scans], decimals)
    found = calibration_error(truth, p, patient[:scans], times, 10)[0]
    assert found == pytest.approx(loop_calibration_error(truth, p), abs=1e-6)


@pytest.mark.parametrize("decimals", [1, 9], ids=["ties", "no ties"])
def test_calibration_error_is_made_of_scikit_learns_bins(case: Case, decimals: int) -> None:
    truth, p, patient, times = case
    p = np.round(p, decimals)
    share, mean = calibration_curve(truth, p, n_bins=10, strategy="quantile")
    counts = np.bincount(bins_of(p, 10))
    expected = (np.abs(share - mean) * counts[counts > 0]).sum() / len(p)
    assert calibration_error(truth, p, patient, times, 10)[0] == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_a_resample_is_that_of_repeated_rows(case: Case) -> None:
    truth, p, patient, times = case
    bins = bins_of(p, 10)
    rows = np.repeat(np.arange(len(p)), times[patient, 5].astype(int))
    expected = sum(abs((truth[rows] - p[rows])[bins[rows] == k].sum()) for k in range(10)) / len(rows)
    assert calibration_error(truth, p, patient, times, 10)[5] == pytest.approx(expected, abs=1e-12)


def test_slope_is_scikit_learns_and_intercept_statsmodels(case: Case) -> None:
    truth, p, *_ = case
    slope, intercept = slope_and_intercept(*case)
    x = logit(p)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(x[:, None], truth)
    assert slope[0] == pytest.approx(model.coef_[0, 0], abs=1e-9)
    offset = sm.GLM(truth.astype(float), np.ones((len(x), 1)), sm.families.Binomial(), offset=x).fit(tol=1e-13)
    assert intercept[0] == pytest.approx(offset.params[0], abs=1e-9)
    assert slope[0] == pytest.approx(0.6, abs=0.15)  # what it was made with


def test_one_step_intervals_are_those_of_refitted_models(case: Case) -> None:
    truth, p, patient, times = case
    x = logit(p)
    refitted = []
    for column in range(1, 301):
        weight = times[patient, column]
        model = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(x[:, None], truth, sample_weight=weight)
        refitted.append(model.coef_[0, 0])
    slope, _ = slope_and_intercept(*case)
    exact, ours = (np.quantile(values, [0.025, 0.975]) for values in (refitted, slope[1:]))
    assert np.abs(exact - ours).max() < 0.1 * (exact[1] - exact[0])
    assert np.corrcoef(refitted, slope[1:])[0, 1] > 0.98


def test_what_has_no_slope_has_none(case: Case) -> None:
    truth, p, patient, times = case
    slope, intercept = slope_and_intercept(truth, np.where(truth, 0.8, 0.3), patient, times)
    assert np.isnan(slope).all()  # scores that separate the classes
    assert np.isfinite(intercept).all()
    assert np.isnan(slope_and_intercept(truth, np.full(len(p), 0.3), patient, times)[0]).all()
    found = slope_and_intercept(truth, np.full(len(p), 0.3), patient, times)[1]
    assert expit(logit(np.array(0.3)) + found[0]) == pytest.approx(truth.mean())
