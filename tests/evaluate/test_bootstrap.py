"""Resampling against closed forms, a naive loop and statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from octdino.evaluate.bootstrap import holm, p_value
from octdino.resampling import draw_patients, interval


def test_each_resample_draws_as_many_patients_as_there_are() -> None:
    times = draw_patients(15, 2000, seed=4)
    assert times.shape == (15, 2001)
    np.testing.assert_array_equal(times[:, 0], 1)
    np.testing.assert_array_equal(times.sum(axis=0), 15)
    # Multinomial: mean 1, variance 1 - 1/15.
    assert times[:, 1:].mean(axis=1) == pytest.approx(np.ones(15), abs=0.1)
    assert times[:, 1:].var() == pytest.approx(14 / 15, abs=0.03)
    np.testing.assert_array_equal(times, draw_patients(15, 2000, seed=4))


def test_interval_of_a_mean_is_the_closed_form() -> None:
    """The bootstrap of a mean has standard error s / sqrt(n); the interval over patients, not over scans."""
    values = np.random.default_rng(0).normal(size=200)
    times = draw_patients(200, 4000, seed=1)
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


def test_p_value_is_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    times = draw_patients(100, 2000, seed=0)
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
