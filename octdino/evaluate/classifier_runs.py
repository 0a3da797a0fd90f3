"""One classifier's predictions on a test set, with its decisions; the folds of a cross-validation are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from octdino.data.csv_io import label_matrix, probability_column
from octdino.data.predictions import Predictions
from octdino.errors import UserError
from octdino.evaluate.label_maps import LabelMap
from octdino.stats.thresholds import choose_threshold, threshold_at

THRESHOLDS = ("chosen", "specificity", "sensitivity")  # kinds of thresholds, see `Run.decided`


class Key(NamedTuple):
    """One classifier over all its folds; `seed` None is the mean over seeds."""

    arm: str
    backbone: str
    fraction: float
    seed: int | None


@dataclass(frozen=True)
class Run:
    """One classifier's predictions on the test set; with repeated cross-validation of one repeat, all with one key.

    Attributes:
        probabilities: float64 [N, L].
        calibrated: float64 [N, L], at the temperature of validation patients; NaN where there is none.
        decided: float64 [N, L] each, 1 at or above the threshold, 0 below, NaN where there is no threshold: `chosen`
            is the classifier's own, `specificity` and `sensitivity` reach the operating point on validation patients.
        n_train_patients: number of labeled training patients, if its metadata has it.
    """

    key: Key
    probabilities: np.ndarray
    calibrated: np.ndarray
    decided: dict[str, np.ndarray]
    n_train_patients: int | None


def key_of(predictions: Predictions) -> Key:
    """Return the key of the classifier that made the predictions."""
    metadata = predictions.metadata
    return Key(metadata.arm, metadata.backbone, metadata.fraction, metadata.seed)


def by_classifier(predictions: Sequence[Predictions]) -> dict[Key, dict[int, Predictions]]:
    """Return the predictions by classifier and fold, in their order.

    Raises:
        UserError: two are of the same classifier and fold.
    """
    classifiers: dict[Key, dict[int, Predictions]] = {}
    for one in predictions:
        key, fold = key_of(one), one.metadata.fold
        folds = classifiers.setdefault(key, {})
        if fold in folds:
            raise UserError(f"{one.folder} and {folds[fold].folder}: the same run, {key} fold {fold}, twice")
        folds[fold] = one
    return classifiers


def repeats_of(folds: dict[int, Predictions]) -> list[list[int]]:
    """Return the folds of each repeat of a cross-validation: a fold that tests a scan again begins the next repeat."""
    repeats: list[list[int]] = []
    tested: set[str] = set()
    for fold in sorted(folds):
        scans = set(folds[fold].take("test").table["scan_id"])
        if not repeats or scans & tested:
            repeats.append([])
            tested = set()
        repeats[-1].append(fold)
        tested |= scans
    return repeats


@dataclass(frozen=True)
class MappedFold:
    """A classifier of one fold, whose labels are mapped to those that are compared.

    Attributes:
        predictions: of validation and test scans.
        labels: the map of its L labels to M others.
        thresholds: float64 [M] of each kind of THRESHOLDS, from validation patients; NaN where there is none.
    """

    predictions: Predictions
    labels: LabelMap
    thresholds: dict[str, np.ndarray]

    @classmethod
    def of(cls, predictions: Predictions, labels: LabelMap, operating_point: float) -> Self:
        """Return the classifier with its thresholds.

        A label that stands for one label of the classifier has the classifier's own threshold; where it stands for
        several, the threshold of their combined probability is chosen on the same patients by the same rule.

        Args:
            operating_point: specificity, and sensitivity, that thresholds reach, a share.
        """
        val, metadata = predictions.take("val").table, predictions.metadata
        truth = labels.truth(label_matrix(val, labels.internal))
        p = labels.probabilities(probabilities_of(val, labels.internal), metadata.exclusive)
        found: dict[str, list[float | None]] = {kind: [] for kind in THRESHOLDS}
        for place, group in enumerate(labels.groups):
            y, score = truth[:, place], p[:, place]
            own = metadata.thresholds[labels.internal[group[0]]]
            found["chosen"].append(own if len(group) == 1 else choose_threshold(y, score, metadata.settings.threshold))
            for kind in THRESHOLDS[1:]:
                found[kind].append(threshold_at(y, score, kind, operating_point))
        known = {kind: np.array([np.nan if t is None else t for t in values]) for kind, values in found.items()}
        return cls(predictions, labels, known)

    def run(self, p: np.ndarray) -> Run:
        """Return the classifier on some scans, at its own temperature and thresholds.

        Args:
            p: float64 [N, L], its probabilities before calibration.
        """
        metadata = self.predictions.metadata
        mapped = self.labels.probabilities(p, metadata.exclusive)
        decided = {kind: np.where(np.isnan(t), np.nan, mapped >= t) for kind, t in self.thresholds.items()}
        calibrated = self.labels.calibrated(p, self.predictions.temperature(), metadata.exclusive)
        return Run(key_of(self.predictions), mapped, calibrated, decided, metadata.n_train_patients)


def pooled_run(folds: Sequence[MappedFold], scans: list[str]) -> Run:
    """Return the folds of one repeat as one run on the test set; each fold decides at its own thresholds.

    Args:
        scans: the N test scans, in their order.
    """
    tests = [fold.predictions.take("test").table for fold in folds]
    runs = [
        fold.run(probabilities_of(test, fold.labels.internal)) for test, fold in zip(tests, folds, strict=True)
    ]  # fmt: skip
    place = pd.Index([scan for test in tests for scan in test["scan_id"]]).get_indexer(scans)
    trained = [run.n_train_patients for run in runs if run.n_train_patients is not None]
    return Run(
        runs[0].key,
        np.concatenate([run.probabilities for run in runs])[place],
        np.concatenate([run.calibrated for run in runs])[place],
        {kind: np.concatenate([run.decided[kind] for run in runs])[place] for kind in THRESHOLDS},
        round(float(np.mean(trained))) if trained else None,
    )


def probabilities_of(table: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Return the predicted probabilities of a table with columns `prob:{label}`, float64 [N, L]."""
    return table[[probability_column(label) for label in labels]].to_numpy(np.float64)
