"""Linear probe on embeddings: one logistic regression per label, or one over all exclusive labels."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    inputs = torch.from_numpy((features - mean) / std).double()
    penalties = sorted(settings.inverse_regularization)  # the strongest first: it wins ties
    fit = _fit_softmax if exclusive else _fit_each
    weights, biases = fit(inputs, torch.from_numpy(truth).double(), penalties, settings.class_weights == "balanced")
    heads, results = [], []
    for penalty, scaled, offset in zip(penalties, weights.numpy(), biases.numpy(), strict=True):
        weight = scaled / std
        head = weight, offset - weight @ mean
        score = validation_score(val_truth, val @ head[0].T + head[1], exclusive)
        log.info("inverse penalty %g: %.4f on validation patients", penalty, score)
        heads.append(head)
        results.append({"inverse_regularization": penalty, "validation_score": finite_or_none(score)})
    return heads[best_index(results)], search_of(results)


def _fit_each(x: Tensor, truth: Tensor, penalties: list[float], balanced: bool) -> tuple[Tensor, Tensor]:
    """Return one regression per penalty and label: weights [P, L, D] and biases [P, L]."""
    known = ~torch.isnan(truth)
    y, count = torch.nan_to_num(truth), known.sum(0)
    positive = y.sum(0)
    weight = known.double()
    if balanced:
        weight *= torch.where(y > 0, count / (2 * positive), count / (2 * (count - positive)))
    learnable = ((positive > 0) & (positive < count)).nonzero()[:, 0]
    weights = torch.zeros(len(penalties), truth.shape[1], x.shape[1], dtype=torch.float64)
    # A label with one class only gets its prevalence, shrunk towards one half.
    biases = torch.log((positive + 0.5) / (count - positive + 0.5)).repeat(len(penalties), 1)
    if len(learnable):
        times = len(penalties)
        strengths = torch.tensor(penalties, dtype=torch.float64).repeat_interleave(len(learnable))
        y, weight = y[:, learnable].repeat(1, times), weight[:, learnable].repeat(1, times)
        found, bias = Regressions(x, strengths, float(weight.max()) / 4).sigmoid(y, weight)
        weights[:, learnable] = found.view(times, len(learnable), -1)
        biases[:, learnable] = bias.view(times, -1)
    return weights, biases


def _fit_softmax(x: Tensor, truth: Tensor, penalties: list[float], balanced: bool) -> tuple[Tensor, Tensor]:
    """Return one multinomial regression per penalty; a class without training scans ranks below all others."""
    seen, classes = torch.unique(truth.argmax(1), return_inverse=True)
    counts = torch.bincount(classes).double()
    weight = (len(x) / (len(seen) * counts))[classes] if balanced else torch.ones(len(x), dtype=torch.float64)
    strengths = torch.tensor(penalties, dtype=torch.float64)
    if len(seen) == 2:  # so that a penalty means the same as for one weight vector: the two vectors are its halves
        strengths /= 2
    found, bias = Regressions(x, strengths, float(weight.max()) / 2).softmax(classes, weight, len(seen))
    weights = torch.zeros(len(penalties), truth.shape[1], x.shape[1], dtype=torch.float64)
    biases = (bias.min(1, keepdim=True).values - np.log(len(x))).repeat(1, truth.shape[1])
    weights[:, seen], biases[:, seen] = found, bias
    return weights, biases
