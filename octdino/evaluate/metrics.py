"""AUROC, average precision, F1, balanced accuracy and accuracy in every bootstrap resample, as scikit-learn has them.

A resample samples whole patients with replacement, so it is one whole number per patient: how often the patient was
sampled. `resample_weights` [P, B] holds these numbers, and each scan has its patient's weight. Each metric is NaN in a
resample that has one class only.
"""

import numpy as np

CELLS = 1_000_000  # of the largest array, scans x resamples; about what a processor's cache holds
FEW_PATIENTS = 256


def ranking_metrics(
    truth: np.ndarray, score: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return AUROC and average precision in every resample.

    Args:
        truth: bool [N].
        score: float [N], higher is more likely positive; ties count half (AUROC) and enter together (AP).
        patient: int [N], the patient of each scan, in [0, P).
        resample_weights: float64 [P, B].

    Returns:
        Two float64 [B].
    """
    order = np.argsort(-score, kind="stable")
    truth, score, patient = truth[order], score[order], patient[order]
    positive, negative = patient[truth], patient[~truth]
    falling_positive, falling_negative = -score[truth], -score[~truth]  # ascending, as searchsorted takes them
    # For each positive scan: the positives, and the negatives, at or above it; the negatives strictly above it.
    hits = Ahead(positive, np.searchsorted(falling_positive, falling_positive, side="right"), len(resample_weights))
    alarms = Ahead(negative, np.searchsorted(falling_negative, falling_positive, side="right"), len(resample_weights))
    above = Ahead(negative, np.searchsorted(falling_negative, falling_positive, side="left"), len(resample_weights))
    width = max(1, CELLS // max(1, len(positive)))
    chunks = [resample_weights[:, low : low + width] for low in range(0, resample_weights.shape[1], width)]
    found = [_ranking(chunk[positive], hits.of(chunk), alarms.of(chunk), above.of(chunk)) for chunk in chunks]
    area, average = (np.concatenate(part) for part in zip(*found, strict=True))
    positives, negatives = (
        np.bincount(side, minlength=len(resample_weights)) @ resample_weights for side in (positive, negative)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        area, average = 1 - area / (2 * positives * negatives), average / positives
    one_class = (positives == 0) | (negatives == 0)
    area[one_class] = np.nan
    average[one_class] = np.nan
    return area, average


def _ranking(
    weight: np.ndarray, hits: np.ndarray, alarms: np.ndarray, above: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return twice the weight of pairs in wrong order (a tie is half wrong), and summed precisions, float64 [B] each.

    The arguments are of the positive scans, [K, B]; they are overwritten, because they are large.
    """
    above += alarms
    wrong = np.einsum("kb,kb->b", weight, above)
    alarms += hits
    alarms[alarms == 0] = 1.0  # no patient sampled so far: the scan itself has weight 0, too
    return wrong, np.einsum("kb,kb->b", weight, np.divide(hits, alarms, out=hits))


class Ahead:
    """Summed weight of the first `places[k]` of some scans, [K, B].

    With few patients, scans are counted once per patient and the counts multiplied with the weights; with many, the
    weights are summed scan by scan. Both give the same sums.
    """

    def __init__(self, patient: np.ndarray, places: np.ndarray, patients: int) -> None:
        self.patient, self.places = patient, places
        self.counts = None
        if patients <= FEW_PATIENTS:
            scans = np.zeros((len(patient) + 1, patients))
            scans[np.arange(1, len(scans)), patient] = 1
            self.counts = np.cumsum(scans, axis=0)[places]

    def of(self, resample_weights: np.ndarray) -> np.ndarray:
        """Return the sums [K, B] for weights [P, B]."""
        if self.counts is not None:
            product: np.ndarray = self.counts @ resample_weights
            return product
        sums: np.ndarray = np.zeros((len(self.patient) + 1, resample_weights.shape[1]))
        for index, patient in enumerate(self.patient):  # whole rows at a time: np.cumsum takes thrice as long
            np.add(sums[index], resample_weights[patient], out=sums[index + 1])
        chosen: np.ndarray = sums[self.places]
        return chosen


def decision_metrics(
    truth: np.ndarray, decided: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 and balanced accuracy in every resample.

    Args:
        truth: bool [N]; decided: bool [N], called positive at the threshold.
        patient: int [N]; resample_weights: float64 [P, B].

    Returns:
        Two float64 [B].
    """
    true_negative, false_positive, false_negative, true_positive = _cells(truth, decided, patient, resample_weights)
    positives, negatives = true_positive + false_negative, true_negative + false_positive
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
        balanced = (true_positive / positives + true_negative / negatives) / 2
    one_class = (positives == 0) | (negatives == 0)
    f1[one_class] = np.nan
    balanced[one_class] = np.nan
    return f1, balanced


def rates(
    truth: np.ndarray, decided: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return sensitivity and specificity in every resample, two float64 [B]; arguments as in `decision_metrics`."""
    true_negative, false_positive, false_negative, true_positive = _cells(truth, decided, patient, resample_weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return true_positive / (true_positive + false_negative), true_negative / (true_negative + false_positive)


def _cells(truth: np.ndarray, decided: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray) -> np.ndarray:
    """Return the confusion matrix: true negatives, false positives, false negatives, true positives, [4, B]."""
    cells = np.zeros((len(resample_weights), 4))
    np.add.at(cells, (patient, 2 * truth.astype(int) + decided), 1)
    counted: np.ndarray = cells.T @ resample_weights
    return counted


def by_patient(
    truth: np.ndarray, score: np.ndarray, patient: np.ndarray, how: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one row per patient: positive if any of the scans is, with the mean or highest score of the scans.

    Args:
        truth: bool [N]; score: float [N]; patient: int [N].
        how: mean or max.

    Returns:
        Truth bool [Q], score float64 [Q] and patient int [Q], of the patients that have a scan here.
    """
    patients, place = np.unique(patient, return_inverse=True)
    positive = np.bincount(place, truth) > 0
    if how == "max":
        pooled = np.full(len(patients), -np.inf)
        np.maximum.at(pooled, place, score)
    else:
        pooled = np.bincount(place, score) / np.bincount(place)
    return positive, pooled, patients


def accuracy(right: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray) -> np.ndarray:
    """Return the share of scans whose class was predicted, in every resample.

    Args:
        right: bool [N].
        patient: int [N]; resample_weights: float64 [P, B].

    Returns:
        float64 [B].
    """
    hits, scans = (
        np.bincount(patient, weights, minlength=len(resample_weights)) @ resample_weights for weights in (right, None)
    )
    with np.errstate(invalid="ignore"):
        share: np.ndarray = hits / scans
    return share
