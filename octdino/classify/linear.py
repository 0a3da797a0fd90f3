"""Linear probe on embeddings: one logistic regression per label, or one over all exclusive labels."""

import logging
from typing import Any

import numpy as np

from octdino.classify.candidates import best_index, finite_or_none, search_of
from octdino.classify.logistic import Regressions
from octdino.config import ClassifySettings
from octdino.stats.validation_score import validation_score

log = logging.getLogger("octdino.classify")

Head = tuple[np.ndarray, np.ndarray]  # weight [L, D], bias [L]


def fit_linear(
    features: np.ndarray,
    truth: np.ndarray,
    val: np.ndarray,
    val_truth: np.ndarray,
    settings: ClassifySettings,
    exclusive: bool = False,
) -> tuple[Head, dict[str, Any]]:
    """Fit probes with all penalties together and return the one that scores best on validation patients.

    Args:
        features: of the training scans, [N, D]; val: of the validation scans, [M, D].
        truth, val_truth: [N, L], [M, L], NaN where missing; a missing label takes no part in its label's loss.
        exclusive: one softmax over the labels.

    Returns:
        Weight [L, D] and bias [L] for the features as they are, and how it was chosen: the results of all penalties
        and the best one.
    """
    mean, std = features.mean(0), features.std(0) + 1e-6
    inputs = ((features - mean) / std).astype(np.float64)
    penalties = sorted(settings.inverse_regularization)  # the strongest first: it wins ties
    fit = _fit_softmax if exclusive else _fit_each
    weights, biases = fit(inputs, truth.astype(np.float64), penalties, settings.class_weights == "balanced")
    heads, results = [], []
    for penalty, scaled, offset in zip(penalties, weights, biases, strict=True):
        weight = scaled / std
        head = weight, offset - weight @ mean
        score = validation_score(val_truth, val @ head[0].T + head[1], exclusive)
        log.info("inverse penalty %g: %.4f on validation patients", penalty, score)
        heads.append(head)
        results.append({"inverse_regularization": penalty, "validation_score": finite_or_none(score)})
    return heads[best_index(results)], search_of(results)


def _fit_each(
    x: np.ndarray, truth: np.ndarray, penalties: list[float], balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return one regression per penalty and label: weights [P, L, D] and biases [P, L]."""
    known = ~np.isnan(truth.T)  # [L, N], as all below
    y, count = np.nan_to_num(truth.T), known.sum(1)
    positive = y.sum(1)
    learnable = np.flatnonzero((positive > 0) & (positive < count))
    weights = np.zeros((len(penalties), len(y), x.shape[1]))
    # A label with one class only gets its prevalence, shrunk towards one half.
    biases = np.tile(np.log((positive + 0.5) / (count - positive + 0.5)), (len(penalties), 1))
    if not len(learnable):
        return weights, biases
    y, weight, count, positive = (
        y[learnable],
        known[learnable].astype(np.float64),
        count[learnable],
        positive[learnable],
    )
    if balanced:
        weight *= np.where(y > 0, (count / (2 * positive))[:, None], (count / (2 * (count - positive)))[:, None])
    times = len(penalties)
    strengths = np.repeat(np.array(penalties, np.float64), len(learnable))
    regressions = Regressions(x, strengths, float(weight.max()) / 4)
    found, bias = regressions.sigmoid(np.tile(y, (times, 1)), np.tile(weight, (times, 1)))
    weights[:, learnable] = found.reshape(times, len(learnable), -1)
    biases[:, learnable] = bias.reshape(times, -1)
    return weights, biases


def _fit_softmax(
    x: np.ndarray, truth: np.ndarray, penalties: list[float], balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return one multinomial regression per penalty; a class without training scans ranks below all others."""
    seen, classes, counts = np.unique(truth.argmax(1), return_inverse=True, return_counts=True)
    weight = (len(x) / (len(seen) * counts))[classes] if balanced else np.ones(len(x))
    strengths = np.array(penalties, np.float64)
    if len(seen) == 2:  # so that a penalty means the same as for one weight vector: the two vectors are its halves
        strengths /= 2
    found, bias = Regressions(x, strengths, float(weight.max()) / 2).softmax(classes, weight, len(seen))
    weights = np.zeros((len(penalties), truth.shape[1], x.shape[1]))
    biases = np.repeat(bias.min(1, keepdims=True) - np.log(len(x)), truth.shape[1], axis=1)
    weights[:, seen], biases[:, seen] = found, bias
    return weights, biases
