"""Thresholds against an exhaustive search with scikit-learn's metrics."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from octdino.thresholds import choose_threshold

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
