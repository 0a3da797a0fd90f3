"""The score on validation patients that chooses penalties, epochs, learning rates and models."""

import math

import numpy as np

from octdino.stats.ranking import auroc


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
    if not math.isnan(score := macro_auroc(truth, scores)):
        return score
    return -float(np.nanmean(np.logaddexp(0, scores) - truth * scores))


def macro_auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean AUROC over the labels [N, L] that have both classes among their known values; NaN if none has."""
    values = [auroc(of_label, score) for of_label, score in zip(truth.T, scores.T, strict=True)]
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
