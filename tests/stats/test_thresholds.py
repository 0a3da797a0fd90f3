"""Thresholds against an exhaustive search with scikit-learn's metrics."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_curve

from octdino.stats.thresholds import choose_threshold, threshold_at

scans = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, float("nan")]), st.integers(0, 12).map(lambda k: k / 12)),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("how", ["youden", "f1"])
@given(rows=scans)
@settings(max_examples=50, deadline=None)
def test_no_other_threshold_does_better(how: Literal["youden", "f1"], rows: list[tuple[float, float]]) -> None:
    y, p = np.array(rows).T
    known = ~np.isnan(y)
    found = choose_threshold(y, p, how)
    if len(set(y[known])) < 2:
        assert found is None
        return
    assert found is not None
    score = balanced_accuracy_score if how == "youden" else f1_score
    best = max(score(y[known], p[known] >= t) for t in np.arange(1, 26, 2) / 24 - 1 / 12)
    assert score(y[known], p[known] >= found) == pytest.approx(best, abs=1e-12)


def test_half_way_between_neighbours_and_the_most_sensitive_of_equals() -> None:
    assert choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9]), "youden") == pytest.approx(0.4)
    # 0.3 and 0.7 both reach Youden 0.5; the lower one misses no positive scan.
    assert choose_threshold(np.array([0, 1, 0, 1]), np.array([0.1, 0.3, 0.5, 0.7]), "youden") == pytest.approx(0.2)


def test_neighbouring_floats_and_constant_predictions() -> None:
    low = 0.3
    high = np.nextafter(low, 1)
    assert choose_threshold(np.array([0, 1]), np.array([low, high]), "youden") == high
    assert choose_threshold(np.array([0, 1, 1]), np.array([0.5, 0.5, 0.5]), "f1") == 0.5


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("decimals", [1, 6], ids=["many ties", "few ties"])
def test_fixed_points_are_the_best_of_scikit_learns_curve(level: float, decimals: int) -> None:
    """Of all points of the ROC curve on these scans that reach the level, the one with most of the other side."""
    rng = np.random.default_rng(0)
    truth = (rng.random(300) < 0.3).astype(float)
    score = np.round(expit(rng.normal(truth, 1)), decimals)
    truth[:20] = np.nan
    y, p = truth[20:], score[20:]
    false_positives, sensitivity, _ = roc_curve(y, p, drop_intermediate=False)
    specificity = 1 - false_positives
    for side, reached, other in (
        ("specificity", specificity, sensitivity),
        ("sensitivity", sensitivity, specificity),
    ):
        threshold = threshold_at(truth, score, side, level)
        assert threshold is not None
        found = {"sensitivity": (p >= threshold)[y == 1].mean(), "specificity": (p < threshold)[y == 0].mean()}
        best = other[reached >= level - 1e-12].max()
        assert found[side] >= level - 1e-12
        assert found[{"specificity": "sensitivity", "sensitivity": "specificity"}[side]] == pytest.approx(best)


def test_fixed_points_need_both_classes() -> None:
    assert threshold_at(np.zeros(3), np.array([0.1, 0.2, 0.3]), "specificity", 0.9) is None
    assert threshold_at(np.array([1.0, np.nan]), np.array([0.1, 0.2]), "sensitivity", 0.9) is None
    worst = threshold_at(np.array([1.0, 0.0]), np.array([0.2, 0.7]), "specificity", 0.9)
    assert worst is not None
    assert worst > 0.7  # nobody is called positive
