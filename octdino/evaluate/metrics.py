"""AUROC, average precision, F1, balanced accuracy and accuracy of all resamples at once, as scikit-learn defines them.

A resample draws whole patients, so it is a whole number a patient: how many times they were drawn. `times` holds these
numbers, [P, B], and a scan weighs as often as its patient. Each metric is NaN in a resample with one class only.
"""

import numpy as np

CELLS = 1_000_000  # of the largest array, scans x resamples; about what a processor's cache holds
FEW_PATIENTS = 256


def ranking_metrics(
    truth: np.ndarray, score: np.ndarray, patient: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision in every resample.

    Args:
        truth: bool [N].
        score: float [N], higher is more likely positive; ties count half (AUROC) and enter together (AP).
        patient: int [N], whose scan it is, in [0, P).
        times: float64 [P, B].

    Returns:
        Two float64 [B].
    """
    order = np.argsort(-score, kind="stable")
    truth, score, patient = truth[order], score[order], patient[order]
    positive, negative, at, falling = patient[truth], patient[~truth], -score[truth], -score[~truth]
    # For each positive scan: the positives, and the negatives, at or above it; the negatives strictly above it.
    hits = Ahead(positive, np.searchsorted(at, at, side="right"), len(times))
    alarms = Ahead(negative, np.searchsorted(falling, at, side="right"), len(times))
    above = Ahead(negative, np.searchsorted(falling, at, side="left"), len(times))
    width = max(1, CELLS // max(1, len(positive)))
    chunks = [times[:, low : low + width] for low in range(0, times.shape[1], width)]
    found = [_ranking(chunk[positive], hits.of(chunk), alarms.of(chunk), above.of(chunk)) for chunk in chunks]
    area, average = (np.concatenate(part) for part in zip(*found, strict=True))
    positives, negatives = (np.bincount(side, minlength=len(times)) @ times for side in (positive, negative))
    with np.errstate(invalid="ignore", divide="ignore"):
        area, average = 1 - area / (2 * positives * negatives), average / positives
    one_class = (positives == 0) | (negatives == 0)
    area[one_class] = np.nan
    average[one_class] = np.nan
    return area, average


def _ranking(
    weight: np.ndarray, hits: np.ndarray, alarms: np.ndarray, above: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For the positive scans [K, B]: twice the weight of pairs in wrong order (a tie is half wrong), and precisions.

    Overwrites its arguments: they are large.
    """
    above += alarms
    wrong = np.einsum("kb,kb->b", weight, above)
    alarms += hits
    alarms[alarms == 0] = 1.0  # nobody drawn so far: the scan itself weighs 0, too
    return wrong, np.einsum("kb,kb->b", weight, np.divide(hits, alarms, out=hits))


class Ahead:
    """Weight of the first `places[k]` of some scans, [K, B].

    The same sum in two orders: with few patients, each one's scans are counted once and matrices multiplied.
    """

    def __init__(self, patient: np.ndarray, places: np.ndarray, patients: int) -> None:
        self.patient, self.places = patient, places
        self.counts = None
        if patients <= FEW_PATIENTS:
            scans = np.zeros((len(patient) + 1, patients))
            scans[np.arange(1, len(scans)), patient] = 1
            self.counts = np.cumsum(scans, axis=0)[places]

    def of(self, times: np.ndarray) -> np.ndarray:
        """[P, B] -> [K, B]."""
        if self.counts is not None:
            product: np.ndarray = self.counts @ times
            return product
        sums: np.ndarray = np.zeros((len(self.patient) + 1, times.shape[1]))
        for index, who in enumerate(self.patient):  # whole rows at a time: np.cumsum takes thrice as long
            np.add(sums[index], times[who], out=sums[index + 1])
        chosen: np.ndarray = sums[self.places]
        return chosen


def decision_metrics(
    truth: np.ndarray, decided: np.ndarray, patient: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """F1 and balanced accuracy in every resample.

    Args:
        truth: bool [N]; decided: bool [N], called positive at the threshold.
        patient: int [N]; times: float64 [P, B].

    Returns:
        Two float64 [B].
    """
    true_negative, false_positive, false_negative, true_positive = _cells(truth, decided, patient, times)
    positives, negatives = true_positive + false_negative, true_negative + false_positive
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
        balanced = (true_positive / positives + true_negative / negatives) / 2
    one_class = (positives == 0) | (negatives == 0)
    f1[one_class] = np.nan
    balanced[one_class] = np.nan
    return f1, balanced


def rates(
    truth: np.ndarray, decided: np.ndarray, patient: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity in every resample, two float64 [B]; arguments as in `decision_metrics`."""
    true_negative, false_positive, false_negative, true_positive = _cells(truth, decided, patient, times)
    with np.errstate(invalid="ignore", divide="ignore"):
        return true_positive / (true_positive + false_negative), true_negative / (true_negative + false_positive)


def _cells(truth: np.ndarray, decided: np.ndarray, patient: np.ndarray, times: np.ndarray) -> np.ndarray:
    """True negatives, false positives, false negatives and true positives, [4, B]."""
    cells = np.zeros((len(times), 4))
    np.add.at(cells, (patient, 2 * truth.astype(int) + decided), 1)
    counted: np.ndarray = cells.T @ times
    return counted


def by_patient(
    truth: np.ndarray, score: np.ndarray, patient: np.ndarray, how: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row a patient: positive if any scan is, with the mean or the highest score of their scans.

    Args:
        truth: bool [N]; score: float [N]; patient: int [N].
        how: mean or max.

    Returns:
        Truth bool [Q], score float64 [Q] and who int [Q], of the patients that have a scan here.
    """
    who, place = np.unique(patient, return_inverse=True)
    positive = np.bincount(place, truth) > 0
    if how == "max":
        pooled = np.full(len(who), -np.inf)
        np.maximum.at(pooled, place, score)
    else:
        pooled = np.bincount(place, score) / np.bincount(place)
    return positive, pooled, who


def accuracy(right: np.ndarray, patient: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Share of scans whose class was named, in every resample.

    Args:
        right: bool [N].
        patient: int [N]; times: float64 [P, B].

    Returns:
        float64 [B].
    """
    hits, scans = (np.bincount(patient, weights, minlength=len(times)) @ times for weights in (right, None))
    with np.errstate(invalid="ignore"):
        share: np.ndarray = hits / scans
    return share
