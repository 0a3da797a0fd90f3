"""Temperatures against scikit-learn's logistic regression, and what they may not do."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearn_log_loss

from octdino.stats.calibration import LIMIT, at_temperature, calibration_of, fit_temperature, log_loss, logit


def overconfident(scans: int = 400, labels: int = 3, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from logits, and probabilities of `factor` times these logits."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (scans, labels))
    truth = (rng.random(logits.shape) < expit(logits)).astype(float)
    truth[rng.random(truth.shape) < 0.1] = np.nan
    return truth, expit(factor * logits)


def test_the_temperature_is_a_logistic_regression_without_intercept() -> None:
    truth, p = overconfident()
    known = ~np.isnan(truth)
    model = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    model.fit(logit(p[known])[:, None], truth[known])
    found = fit_temperature(truth, p, exclusive=False)
    assert found == pytest.approx(1 / model.coef_[0, 0], rel=1e-8)
    assert found == pytest.approx(3, rel=0.15)  # what it was made with


def test_a_softmax_has_one_temperature_too() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (2000, 4))
    classes = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=1)])
    truth, p = np.eye(4)[classes], softmax(2.5 * logits, axis=1)
    temperature = fit_temperature(truth, p, exclusive=True)
    assert temperature == pytest.approx(2.5, rel=0.1)
    after = at_temperature(p, float(temperature or 0), exclusive=True)
    np.testing.assert_allclose(after.sum(1), 1)
    for other in (0.98, 1.02):  # the best of its neighbourhood, by scikit-learn's own loss
        near = at_temperature(p, float(temperature or 0) * other, exclusive=True)
        assert sklearn_log_loss(classes, after) < sklearn_log_loss(classes, near)


def test_order_stays_and_one_is_no_change() -> None:
    _, p = overconfident()
    np.testing.assert_allclose(at_temperature(p, 1.0, exclusive=False), np.clip(p, 1e-6, 1 - 1e-6), rtol=1e-9)
    cooled = at_temperature(p, 4.0, exclusive=False)
    for before, after in zip(p.T, cooled.T, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= 0).all()  # equal where both were clipped
    assert (np.abs(cooled - 0.5) <= np.abs(p - 0.5) + 1e-12).all()


def test_ends_where_scores_say_nothing_or_everything() -> None:
    truth = np.array([[0.0], [0.0], [1.0], [1.0]])
    assert fit_temperature(truth, np.array([[0.1], [0.2], [0.8], [0.9]]), exclusive=False) == pytest.approx(1 / LIMIT)
    assert fit_temperature(truth, np.array([[0.9], [0.8], [0.2], [0.1]]), exclusive=False) == LIMIT
    assert fit_temperature(np.zeros((4, 1)), np.full((4, 1), 0.3), exclusive=False) is None
    assert fit_temperature(np.full((4, 1), np.nan), np.full((4, 1), 0.3), exclusive=False) is None


def test_the_card_says_where_it_came_from() -> None:
    truth, p = overconfident()
    card = calibration_of(truth, p, False, patients=20)
    assert card["from"] == "val"
    assert (card["n_patients"], card["n_scans"]) == (20, 400)
    known = ~np.isnan(truth)
    loss = card["log_loss"]
    assert isinstance(loss, dict)
    assert loss["before"] == pytest.approx(sklearn_log_loss(truth[known], np.clip(p[known], 1e-6, 1 - 1e-6)))
    assert loss["after"] < loss["before"]
    assert log_loss(np.eye(2)[[0, 1]], np.array([[0.9, 0.1], [0.4, 0.6]]), True) == pytest.approx(
        -np.log([0.9, 0.6]).mean()
    )
    assert calibration_of(np.zeros((4, 1)), np.full((4, 1), 0.3), False, 2)["temperature"] is None
