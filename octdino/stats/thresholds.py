"""Decision threshold (operating point) of a label: chosen on validation patients, then fixed."""

from typing import assert_never

import numpy as np

from octdino.config.names import ThresholdRule


def choose_threshold(y: np.ndarray, p: np.ndarray, how: ThresholdRule) -> float | None:
    """Return the threshold t at which `p >= t` is best on these scans; of equally good ones the most sensitive.

    Args:
        y: labels [N], 0, 1 or NaN where missing; missing ones are left out.
        p: predicted probabilities [N].
        how: youden maximizes sensitivity + specificity - 1 (Youden 1950), f1 the F1 score.

    Returns:
        A value half-way between two adjacent predictions, so that rounding cannot flip a scan, or the smallest
        prediction (everything is positive); None where only one class is known: nothing could be chosen then.
    """
    known = ~np.isnan(np.asarray(y, dtype=np.float64))
    truth, score = np.asarray(y)[known] > 0.5, np.asarray(p, dtype=np.float64)[known]
    assert np.isfinite(score).all(), "a predicted probability is not a number"
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    values, place = np.unique(score, return_inverse=True)  # ascending
    # Scans called positive at each candidate: those at or above it.
    true_positive = _at_or_above(np.bincount(place[truth], minlength=len(values)))
    false_positive = _at_or_above(np.bincount(place[~truth], minlength=len(values)))
    if how == "youden":
        # In whole numbers: equally good candidates must compare as equal, and quotients may not.
        quality = true_positive * negatives - false_positive * positives
    elif how == "f1":
        quality = 2 * true_positive / (true_positive + false_positive + positives)
    else:
        assert_never(how)
    best = int(np.argmax(quality))  # the first of several is the lowest threshold
    if best == 0:
        return float(values[0])
    half_way = (values[best - 1] + values[best]) / 2
    return float(half_way if half_way > values[best - 1] else values[best])


def _at_or_above(counts: np.ndarray) -> np.ndarray:
    """Return cumulative counts from the end, [K]."""
    return counts[::-1].cumsum()[::-1]


def threshold_at(y: np.ndarray, p: np.ndarray, side: str, level: float) -> float | None:
    """Return the threshold t at which `p >= t` reaches `level` of sensitivity or specificity, with most of the other.

    Args:
        y: labels [N], 0, 1 or NaN where missing; missing ones are left out.
        p: predicted probabilities [N].
        side: specificity: the lowest t with enough true negatives; sensitivity: the highest with enough true
            positives.
        level: above 0, at most 1.

    Returns:
        As `choose_threshold`; a value above all predictions where only no positive call reaches the specificity.
    """
    known = ~np.isnan(np.asarray(y, dtype=np.float64))
    truth, score = np.asarray(y)[known] > 0.5, np.asarray(p, dtype=np.float64)[known]
    if truth.all() or not truth.any():
        return None
    values = np.unique(score)
    # At candidate k everything at or above values[k] is positive; at the last one nothing is.
    if side == "specificity":
        spared = np.append(np.searchsorted(np.sort(score[~truth]), values, side="left"), (~truth).sum())
        best = int(np.argmax(spared >= level * (~truth).sum() - 1e-9))
    else:
        found = truth.sum() - np.searchsorted(np.sort(score[truth]), values, side="left")
        best = int(np.flatnonzero(found >= level * truth.sum() - 1e-9)[-1])
    if best == len(values):
        return float(np.nextafter(values[-1], np.inf))
    if best == 0:
        return float(values[0])
    half_way = (values[best - 1] + values[best]) / 2
    return float(half_way if half_way > values[best - 1] else values[best])
