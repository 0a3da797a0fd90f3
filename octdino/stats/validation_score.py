"""The score on validation patients that chooses penalties, epochs, learning rates and models."""

import math

import numpy as np
from sklearn.metrics import roc_auc_score


def validation_score(truth: np.ndarray, scores: np.ndarray, exclusive: bool = False) -> float:
    """Return the score that chooses penalties and epochs: macro AUROC, or accuracy where labels exclude each other.

    Args:
        truth, scores: [N, L]; AUROC is averaged over the labels that have both classes, and is minus the mean log loss
            where no label has. NaN if a score is not finite.
    """
    if not np.isfinite(scores).all():
        return math.nan
    if exclusive:
        return float((scores.argmax(1) == truth.argmax(1)).mean())
    values = [_auroc(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
    known = [value for value in values if value is not None]
    if known:
        return float(np.mean(known))
    return -float(np.nanmean(np.logaddexp(0, scores) - truth * scores))


def _auroc(truth: np.ndarray, score: np.ndarray) -> float | None:
    known = ~np.isnan(truth)
    if len(np.unique(truth[known])) < 2:
        return None
    return float(roc_auc_score(truth[known], score[known]))
