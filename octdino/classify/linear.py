"""A linear probe: the backbone is frozen, features are computed once, one logistic regression a label or over all."""

import logging
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from octdino.classify.outputs import validation_score
from octdino.config import ClassifySettings

log = logging.getLogger("octdino.classify")

Head = tuple[np.ndarray, np.ndarray]  # weight [L, D], bias [L]


def fit_linear(
    features: np.ndarray,
    truth: np.ndarray,
    val: np.ndarray,
    val_truth: np.ndarray,
    settings: ClassifySettings,
    exclusive: bool = False,
) -> tuple[Head, float]:
    """The probe whose penalty does best on validation patients.

    Args:
        features: of the training scans, [N, D]; val: of the validation scans, [M, D].
        truth, val_truth: [N, L], [M, L], NaN where missing; a missing label takes no part in its label's loss.
        exclusive: one softmax over the labels.

    Returns:
        Weight [L, D] and bias [L] for the features as they are, and the chosen inverse penalty.
    """
    fit = _fit_softmax if exclusive else _fit_each
    mean, std = features.mean(0), features.std(0) + 1e-6
    best: tuple[float, float, Head] | None = None
    for penalty in sorted(settings.penalties):  # the strongest first: it wins ties
        weight, bias = fit((features - mean) / std, truth, penalty, settings.class_weights)
        weight = weight / std
        head = weight, bias - weight @ mean
        score = validation_score(val_truth, val @ head[0].T + head[1], exclusive)
        log.info("inverse penalty %g: %.4f on validation patients", penalty, score)
        if best is None or score > best[0]:
            best = score, penalty, head
    assert best is not None
    return best[2], best[1]


def _fit_each(x: np.ndarray, truth: np.ndarray, penalty: float, class_weights: str) -> Head:
    """One logistic regression a label."""
    weight, bias = np.zeros((truth.shape[1], x.shape[1])), np.zeros(truth.shape[1])
    for index, values in enumerate(truth.T):
        known = ~np.isnan(values)
        positive, count = np.nansum(values), known.sum()
        if positive in (0, count):  # one class only: its prevalence, shrunk towards one half
            bias[index] = np.log((positive + 0.5) / (count - positive + 0.5))
            continue
        model = _regress(x[known], values[known], penalty, class_weights)
        weight[index], bias[index] = model.coef_[0], model.intercept_[0]
    return weight, bias


def _fit_softmax(x: np.ndarray, truth: np.ndarray, penalty: float, class_weights: str) -> Head:
    """One multinomial regression over all labels; a class that no training scan has gets less than any that one has."""
    weight, bias = np.zeros((truth.shape[1], x.shape[1])), np.zeros(truth.shape[1])
    model = _regress(x, truth.argmax(1), penalty, class_weights)
    seen = model.classes_
    if len(seen) == 2:  # scikit-learn gives one vector, of the second class against the first
        weight[seen], bias[seen] = np.outer((-0.5, 0.5), model.coef_[0]), (-0.5, 0.5) * model.intercept_
    else:
        weight[seen], bias[seen] = model.coef_, model.intercept_
    unseen = np.setdiff1d(np.arange(truth.shape[1]), seen)
    bias[unseen] = bias[seen].min() - np.log(len(x))
    return weight, bias


def _regress(x: np.ndarray, y: np.ndarray, penalty: float, class_weights: str) -> LogisticRegression:
    balanced = "balanced" if class_weights == "balanced" else None
    model = LogisticRegression(C=penalty, max_iter=500, class_weight=balanced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties separate perfectly and never settle
        return model.fit(x, y)
