"""AUROC and curves are scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn import metrics

from octdino.stats.ranking import auroc, precision_recall_curve, roc_curve
from octdino.stats.validation_score import macro_auroc


def scans(count: int, levels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth of both classes, and scores of which many are tied where there are few levels."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.3
    truth[:2] = False, True
    return truth, np.round((rng.normal(size=count) + truth) * levels) / levels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [1, 3, 10**9])
@pytest.mark.parametrize("count", [2, 3, 10, 500])
def test_scores_and_curves_equal_scikit_learns(count: int, levels: int, seed: int) -> None:
    truth, score = scans(count, levels, seed)
    assert auroc(truth.astype(float), score) == pytest.approx(metrics.roc_auc_score(truth, score), abs=1e-12)
    for found, expected in zip(roc_curve(truth, score), metrics.roc_curve(truth, score)[:2], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-15)
    expected_points = metrics.precision_recall_curve(truth, score, drop_intermediate=True)[:2]
    for found, expected in zip(precision_recall_curve(truth, score), expected_points, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-15)


def test_equal_scores_are_half_in_order() -> None:
    truth, score = np.array([0, 1, 1, 0]), np.zeros(4)
    assert auroc(truth, score) == 0.5
    assert [part.tolist() for part in roc_curve(truth == 1, score)] == [[0, 1], [0, 1]]
    assert [part.tolist() for part in precision_recall_curve(truth == 1, score)] == [[0.5, 1], [1, 0]]


def test_missing_labels_are_left_out_and_one_class_has_no_auroc() -> None:
    nan = math.nan
    assert auroc(np.array([0, 1, nan, 1, 0]), np.array([0.1, 0.9, 0.0, 0.4, 0.5])) == 0.75
    for one_class in ([1.0, 1.0, nan], [0.0, nan, 0.0], [nan, nan, nan]):
        assert math.isnan(auroc(np.array(one_class), np.arange(3.0)))


def test_macro_auroc_skips_labels_without_both_classes() -> None:
    truth = np.array([[0, 1, np.nan], [1, 1, 0], [np.nan, 1, 0]])
    scores = np.array([[0.1, 0.5, 0], [0.9, 0.5, 0], [0.0, 0.5, 1]])
    assert macro_auroc(truth, scores) == 1.0
    assert math.isnan(macro_auroc(truth[:, 1:2], scores[:, 1:2]))
