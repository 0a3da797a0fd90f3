"""How well scores rank positive scans above negative ones: AUROC, ROC curve, precision-recall curve.

Of one test set; octdino/evaluate/metrics.py has AUROC and average precision of all bootstrap resamples together.
"""

import math

import numpy as np


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve, the share of (positive, negative) pairs in order; a tie is half in order.

    Args:
        truth: [N], 0, 1, or NaN where missing; missing ones are left out.
        score: [N], finite, higher is more likely positive.

    Returns:
        NaN where only one class is known.
    """
    known = ~np.isnan(truth)
    positive, negative = _counts(truth[known] > 0.5, score[known])
    pairs = int(positive.sum()) * int(negative.sum())
    below = np.cumsum(negative[::-1])[::-1] - negative  # negative scans with a lower score
    return float((positive * (2 * below + negative)).sum() / (2 * pairs)) if pairs else math.nan


def roc_curve(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 - specificity and sensitivity from (0, 0) to (1, 1), without points between others on a straight line.

    Args:
        truth: bool [N], of both classes; score: [N].
    """
    positive, negative = (np.cumsum(part) for part in _counts(truth, score))
    corner = (np.diff(positive, 2) != 0) | (np.diff(negative, 2) != 0)
    kept = _with_ends(corner, len(positive))
    return np.append(0, negative[kept]) / negative[-1], np.append(0, positive[kept]) / positive[-1]


def precision_recall_curve(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall, from the lowest threshold to precision 1 at recall 0.

    Points between two others of the same recall are left out.

    Args:
        truth: bool [N], with a positive scan; score: [N].
    """
    positive, negative = (np.cumsum(part) for part in _counts(truth, score))
    turn = (np.diff(positive[:-1]) != 0) | (np.diff(positive[1:]) != 0)
    kept = _with_ends(turn, len(positive))
    precision, recall = positive[kept] / (positive + negative)[kept], positive[kept] / positive[-1]
    return np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0)


def _with_ends(inner: np.ndarray, count: int) -> np.ndarray:
    """Return which of `count` points are kept: of the inner ones those given, and both ends."""
    return np.concatenate([[True], inner, [True]])[:count]


def _counts(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of positive and negative scans of each different score, the highest first: int64 [K] each."""
    values, place = np.unique(-score, return_inverse=True)
    positive, negative = (np.bincount(place[part], minlength=len(values)) for part in (truth, ~truth))
    return positive, negative
