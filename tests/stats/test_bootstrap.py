"""Resampling against closed forms, a naive loop and statsmodels."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, ttest_1samp
from statsmodels.stats.multitest import multipletests

from octdino.stats.bootstrap import (
    GROUPS,
    bca_interval,
    corrected_confidence,
    corrected_p,
    interval,
    jackknife_weights,
    p_value,
    resample_patients,
    resample_seeds,
)
from octdino.stats.significance import holm


def test_each_resample_draws_as_many_patients_as_there_are() -> None:
    times = resample_patients(15, 2000, seed=4)
    assert times.shape == (15, 2001)
    np.testing.assert_array_equal(times[:, 0], 1)
    np.testing.assert_array_equal(times.sum(axis=0), 15)
    # Multinomial: mean 1, variance 1 - 1/15.
    assert times[:, 1:].mean(axis=1) == pytest.approx(np.ones(15), abs=0.1)
    assert times[:, 1:].var() == pytest.approx(14 / 15, abs=0.03)
    np.testing.assert_array_equal(times, resample_patients(15, 2000, seed=4))


def test_interval_of_a_mean_is_the_closed_form() -> None:
    """The bootstrap of a mean has standard error s / sqrt(n); the interval over patients, not over scans."""
    values = np.random.default_rng(0).normal(size=200)
    times = resample_patients(200, 4000, seed=1)
    means = values @ times[:, 1:] / 200
    low, high = interval(means, 0.95)
    half = 1.96 * values.std() / np.sqrt(200)
    assert [low, high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.1 * half)


def test_interval_leaves_out_what_does_not_exist() -> None:
    column = np.array([np.nan, 1.0, 2.0, 3.0, np.nan])
    low, high = interval(np.stack([column, np.full(5, np.nan)], axis=1), 0.9)
    assert [low[0], high[0]] == pytest.approx(np.quantile([1, 2, 3], [0.05, 0.95]))
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_p_value_counts_both_sides_and_the_observed_one() -> None:
    assert p_value(np.full(999, 0.1)) == pytest.approx(2 / 1000)  # never zero
    assert p_value(np.zeros(999)) == 1.0  # two equal arms
    mixed = np.array([-1.0] * 9 + [1.0] * 90)
    assert p_value(mixed) == pytest.approx(2 * 10 / 100)
    assert p_value(-mixed) == p_value(mixed)
    assert p_value(np.append(mixed, np.nan)) == p_value(mixed)
    assert np.isnan(p_value(np.array([np.nan])))
    assert p_value(mixed, patients=12) == pytest.approx(corrected_p(np.array(2 * 9 / 99), 12))
    assert p_value(mixed, patients=12) > p_value(mixed)
    assert p_value(np.full(999, 0.1), patients=12) == pytest.approx(2 / 1000)
    assert np.isnan(p_value(np.array([np.nan]), patients=12))


def test_p_value_is_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    times = resample_patients(100, 2000, seed=0)
    found = p_value((rng.normal(size=(400, 100)) @ times[:, 1:] / 100).T)
    assert (found < 0.05).mean() == pytest.approx(0.05, abs=0.035)
    assert (found < 0.5).mean() == pytest.approx(0.5, abs=0.09)


def test_holm_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 12):
        p = np.round(rng.random(size) ** 3, 2)  # with ties
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-12)
        gaps = np.insert(p, size // 2, np.nan)
        np.testing.assert_allclose(np.delete(holm(gaps), size // 2), holm(p), rtol=1e-12)
        assert np.isnan(holm(gaps)[size // 2])
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("skewed", [False, True])
def test_bca_is_scipys(skewed: bool) -> None:
    """From the same replicates: scipy takes a distribution that was drawn before."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=40) if skewed else rng.normal(size=40)
    times = resample_patients(40, 2000, seed=1)
    replicates = values @ times[:, 1:] / 40
    left_out = values @ jackknife_weights(40) / 39
    low, high = bca_interval(replicates, values.mean(), left_out, 0.95)
    drawn = SimpleNamespace(bootstrap_distribution=replicates)
    expected = bootstrap((values,), np.mean, n_resamples=0, bootstrap_result=drawn, method="BCa").confidence_interval
    assert [low, high] == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_bca_of_many_values_at_once_leaves_out_what_does_not_exist() -> None:
    rng = np.random.default_rng(0)
    replicates, left_out = rng.normal(size=(500, 2, 3)), rng.normal(size=(20, 2, 3))
    replicates[:, 1, 2], left_out[:, 1, 2], replicates[::7, 0, 0] = np.nan, np.nan, np.nan
    replicates[:, 0, 1] = left_out[:, 0, 1] = 0.0
    low, high = bca_interval(replicates, np.zeros((2, 3)), left_out, 0.9)
    assert np.isnan(low[1, 2])
    assert low[0, 1] == high[0, 1] == 0
    kept = replicates[np.isfinite(replicates[:, 0, 0]), 0, 0]
    alone = bca_interval(kept, np.zeros(()), left_out[:, 0, 0], 0.9)
    assert [low[0, 0], high[0, 0]] == pytest.approx([float(alone[0]), float(alone[1])], abs=1e-12)


def test_the_jackknife_leaves_out_each_patient_once_or_groups_of_many() -> None:
    np.testing.assert_array_equal(jackknife_weights(5), 1 - np.eye(5))
    many = jackknife_weights(1000)
    assert many.shape == (1000, GROUPS)
    np.testing.assert_array_equal(many.sum(axis=0), 1000 - 1000 // GROUPS)
    np.testing.assert_array_equal((1 - many).sum(axis=1), 1)


def test_seeds_weigh_as_often_as_they_are_drawn() -> None:
    weights = resample_seeds(3, 5000, seed=0)
    assert weights.shape == (3, 5001)
    np.testing.assert_allclose(weights[:, 0], 1 / 3)
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    values = np.array([0.6, 0.7, 0.9])
    # Variance of the mean of three draws: the population variance over 3.
    assert (values @ weights[:, 1:]).var() == pytest.approx(values.var() / 3, rel=0.06)


def test_expanded_intervals_are_students_and_p_agrees_with_them() -> None:
    """Of a mean of n values: mean +- t * s / sqrt(n), with the s of n - 1, from the normal quantiles of a bootstrap."""
    values = np.random.default_rng(0).normal(size=12)
    exact = ttest_1samp(values, 0.0)
    spread = values.std() / np.sqrt(12)  # of the bootstrap's means
    for confidence in (0.9, 0.95):
        reach = norm.ppf((1 + corrected_confidence(confidence, 12)) / 2) * spread
        expected = exact.confidence_interval(confidence)
        assert [values.mean() - reach, values.mean() + reach] == pytest.approx([expected.low, expected.high])
    plain = 2 * norm.cdf(-abs(values.mean()) / spread)
    assert corrected_p(np.array([plain]), 12)[0] == pytest.approx(exact.pvalue)
    assert corrected_confidence(0.95, 100_000) == pytest.approx(0.95, abs=1e-4)
    assert corrected_p(np.array([1.0, 0.0, np.nan]), 9).tolist()[:2] == [1.0, 0.0]
    assert corrected_confidence(0.95, 20) == pytest.approx(0.968, abs=5e-4)  # what config.yaml says
