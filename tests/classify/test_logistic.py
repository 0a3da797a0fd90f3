"""All regressions at once are each what scikit-learn finds, one at a time."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from octdino.classify.linear import _fit_each, _fit_softmax
from octdino.classify.logistic import minimize

PENALTIES = [1e-3, 0.1, 10.0, 1000.0]


def problem(seed=0, count=120, dim=15, labels=3):
    """Features with near copies of each other, as pooled features have; labels rare and common, some cells missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, dim))
    x[:, dim // 2 :] = x[:, : dim - dim // 2] + 0.01 * x[:, dim // 2 :]
    x = (x - x.mean(0)) / x.std(0)
    logits = x @ rng.normal(size=(dim, labels)) + np.linspace(-3, 1, labels)
    return x, logits, rng


def reference(x, y, penalty, balanced):
    model = LogisticRegression(C=penalty, max_iter=100_000, tol=1e-10, class_weight="balanced" if balanced else None)
    return model.fit(x, y)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("balanced", [False, True])
def test_each_label_and_penalty_is_a_regression_of_its_own(seed, balanced):
    x, logits, rng = problem(seed)
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    truth[rng.random(truth.shape) < 0.2] = np.nan
    weights, biases = _fit_each(x, truth, PENALTIES, balanced)
    for p, penalty in enumerate(PENALTIES):
        for label, y in enumerate(truth.T):
            known = ~np.isnan(y)
            expected = reference(x[known], y[known], penalty, balanced).decision_function(x)
            got = x @ weights[p, label] + biases[p, label]
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_softmax_is_the_multinomial_regression(classes, balanced):
    x, logits, rng = problem(labels=classes)
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    weights, biases = _fit_softmax(x, np.eye(classes)[y], PENALTIES, balanced)
    for p, penalty in enumerate(PENALTIES):
        got = softmax(x @ weights[p].T + biases[p], axis=1)
        expected = reference(x, y, penalty, balanced).predict_proba(x)
        np.testing.assert_allclose(got, expected, atol=2e-3)


def test_problems_side_by_side_do_not_touch_each_other():
    """Quadratics of which one is solved at once and one is a thousand times longer than wide."""
    scales = np.array([[1.0, 1.0], [1.0, 1000.0], [0.01, 5.0]])
    targets = np.array([[1.0, -2.0], [3.0, 4.0], [0.0, 0.0]])
    asked = []

    def objective(points, problems):
        asked.append(len(problems))
        away = points - targets[problems]
        return (scales[problems] * away**2).sum(1) / 2, scales[problems] * away

    found = minimize(objective, np.zeros((3, 2)))
    np.testing.assert_allclose(found, targets, rtol=1e-4, atol=1e-4)
    assert asked[-1] < 3, "the finished ones are left alone"


def test_labels_that_separate_end_with_finite_weights():
    x = np.linspace(-1, 1, 20)[:, None].repeat(3, axis=1)
    weights, biases = _fit_each(x, (x[:, :1] > 0).astype(float), [1e6], balanced=False)
    assert np.isfinite(weights).all()
    assert ((x @ weights[0].T + biases[0] > 0) == (x[:, :1] > 0)).all()
