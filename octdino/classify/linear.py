"""A linear probe: the backbone is frozen, features are computed once, one logistic regression a label."""

import logging
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from octdino.config import ClassifySettings

log = logging.getLogger("octdino.classify")

Head = tuple[np.ndarray, np.ndarray]  # weight [L, D], bias [L]


def fit_linear(
    features: np.ndarray, truth: np.ndarray, val: np.ndarray, val_truth: np.ndarray, settings: ClassifySettings
) -> tuple[Head, float]:
    """The probe whose penalty gives the best macro AUROC on validation patients.

    Args:
        features: of the training scans, [N, D]; val: of the validation scans, [M, D].
        truth, val_truth: [N, L], [M, L], NaN where missing; a missing label takes no part in its label's loss.

    Returns:
        Weight [L, D] and bias [L] for the features as they are, and the chosen inverse penalty.
    """
    mean, std = features.mean(0), features.std(0) + 1e-6
    best: tuple[float, float, Head] | None = None
    for penalty in sorted(settings.penalties):  # the strongest first: it wins ties
        weight, bias = _fit((features - mean) / std, truth, penalty, settings.class_weights)
        weight = weight / std
        head = weight, bias - weight @ mean
        score = validation_score(val_truth, val @ head[0].T + head[1])
        log.info("inverse penalty %g: macro AUROC on validation patients %.4f", penalty, score)
        if best is None or score > best[0]:
            best = score, penalty, head
    assert best is not None
    return best[2], best[1]


def _fit(x: np.ndarray, truth: np.ndarray, penalty: float, class_weights: str) -> Head:
    weight, bias = np.zeros((truth.shape[1], x.shape[1])), np.zeros(truth.shape[1])
    for index, values in enumerate(truth.T):
        known = ~np.isnan(values)
        positive, count = np.nansum(values), known.sum()
        if positive in (0, count):  # one class only: its prevalence, shrunk towards one half
            bias[index] = np.log((positive + 0.5) / (count - positive + 0.5))
            continue
        model = LogisticRegression(
            C=penalty, max_iter=500, class_weight="balanced" if class_weights == "balanced" else None
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties separate perfectly and never settle
            model.fit(x[known], values[known])
        weight[index], bias[index] = model.coef_[0], model.intercept_[0]
    return weight, bias


def validation_score(truth: np.ndarray, scores: np.ndarray) -> float:
    """Macro AUROC [N, L] over the labels that have both classes; minus the mean log loss where no label has."""
    values = [_auroc(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
    known = [value for value in values if value is not None]
    if known:
        return float(np.mean(known))
    return -float(np.nanmean(np.logaddexp(0, scores) - truth * scores))


def _auroc(truth: np.ndarray, scores: np.ndarray) -> float | None:
    known = ~np.isnan(truth)
    if len(np.unique(truth[known])) < 2:
        return None
    return float(roc_auc_score(truth[known], scores[known]))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities without overflow."""
    half: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logits))
    return half
