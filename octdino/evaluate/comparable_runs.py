"""Read the predictions of all runs and check that they can be compared: same test scans, same labels, no leakage."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from octdino.config import EvaluateSettings
from octdino.data.cohort_reader import Cohort
from octdino.data.cohort_words import SCAN_WORDS, Words
from octdino.data.csv_io import label_matrix, probability_column
from octdino.data.predictions import Predictions, read_predictions
from octdino.data.sampling_units import PATIENT, Unit
from octdino.errors import UserError
from octdino.stats.calibration import at_temperature
from octdino.stats.thresholds import threshold_at

PRIMARY, EXPLORATORY, NOT_EVALUABLE = "primary", "exploratory", "not evaluable"


class Key(NamedTuple):
    """One classifier over all its folds; `seed` None is the mean over seeds."""

    arm: str
    backbone: str
    fraction: float
    seed: int | None


@dataclass(frozen=True)
class TestSet:
    """The test scans, the same for every arm: those of the one fold, or of all folds together.

    Attributes:
        fold: its number, or "pooled".
        labels: L names.
        truth: float32 [N, L], NaN where missing.
        patient: int [N] in [0, P).
        tiers: of each label.
        exclusive: whether each scan has exactly one of the labels, by the metadata of all classifiers.
        unit: what is resampled: patients, or images where patients are unknown or there are none.
        rows: of the manifest, N of them.
        words: nouns of the cohort, for figures.
    """

    fold: str
    labels: list[str]
    truth: np.ndarray
    patient: np.ndarray
    tiers: list[str]
    exclusive: bool = False
    unit: Unit = PATIENT
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    words: Words = SCAN_WORDS

    @property
    def patients(self) -> int:
        """Return P, the number of test patients."""
        return int(self.patient.max()) + 1

    @property
    def evaluable(self) -> np.ndarray:
        """Return whether each label is evaluable, bool [L]."""
        return np.array([tier != NOT_EVALUABLE for tier in self.tiers], dtype=bool)


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


def read_runs(settings: EvaluateSettings, cohort: Cohort, folders: list[Path]) -> tuple[TestSet, list[Run]]:
    """Return the test set and the predictions of all runs on it.

    Raises:
        UserError: nothing to compare, a label without predictions, a scan that is not a test scan of the manifest,
            labels other than the manifest's, or arms tested on different scans.
    """
    manifest, manifest_file = cohort.manifest, cohort.store.with_name("manifest.csv")
    labels = _compared(settings, cohort)
    chosen_on: dict[Key, dict[int, Predictions]] = defaultdict(dict)
    runs: dict[Key, dict[int, Predictions]] = defaultdict(dict)
    for folder in folders:
        both = read_predictions(folder.parent if folder.is_file() else folder)
        found = both.take("test")
        if missing := [label for label in labels if label not in found.labels]:
            raise UserError(f"{found.folder}: no predictions of {', '.join(missing)}, a label in {manifest_file}")
        key, fold = key_of(found)
        if fold in runs[key]:
            raise UserError(f"{found.folder} and {runs[key][fold].folder}: the same run, {key} fold {fold}, twice")
        runs[key][fold], chosen_on[key][fold] = found, both.take("val")
    if not runs:
        raise UserError("nothing to evaluate: name the folders of at least one classifier")
    scans = _same_scans(runs, cohort)
    rows = manifest.set_index("scan_id").loc[scans]
    truth = label_matrix(rows, labels)
    test = TestSet(
        fold=str(next(iter(first))) if len(first := next(iter(runs.values()))) == 1 else "pooled",
        labels=labels,
        truth=truth,
        patient=pd.factorize(rows["patient"])[0],
        tiers=tiers(settings, manifest, labels, truth, rows["patient"].to_numpy()),
        exclusive=_exclusive([found for folds in runs.values() for found in folds.values()], labels, cohort),
        unit=cohort.unit,
        rows=rows.reset_index(),
        words=cohort.words,
    )
    level = settings.operating_point
    return test, [
        _pooled(key, {fold: runs[key][fold] for fold in folds}, chosen_on[key], level, scans, labels, truth)
        for key in sorted(runs)
        for folds in repeats_of(next(iter(runs.values())))
    ]


def _compared(settings: EvaluateSettings, cohort: Cohort) -> list[str]:
    """Return the cohort's labels, or those of them that the settings name."""
    labels = cohort.labels
    if unknown := [label for label in settings.labels or [] if label not in labels]:
        path = cohort.store.with_name("manifest.csv")
        raise UserError(f"evaluate.labels: {unknown[0]} is no label of {path}; it has {', '.join(labels)}")
    return labels if settings.labels is None else [label for label in labels if label in settings.labels]


def repeats_of(folds: dict[int, Predictions]) -> list[list[int]]:
    """Return the folds of each repeat of a cross-validation: a fold that tests a scan again begins the next repeat."""
    repeats: list[list[int]] = []
    tested: set[str] = set()
    for fold in sorted(folds):
        scans = set(folds[fold].table["scan_id"])
        if not repeats or scans & tested:
            repeats.append([])
            tested = set()
        repeats[-1].append(fold)
        tested |= scans
    return repeats


def key_of(found: Predictions) -> tuple[Key, int]:
    """Return the key and the fold of a run."""
    card = found.metadata
    return Key(card.arm, card.backbone, card.fraction, card.seed), card.fold


def _exclusive(runs: list[Predictions], labels: list[str], cohort: Cohort) -> bool:
    """Return whether each scan has exactly one of `labels`: by the metadata, and if no label is left out.

    Raises:
        UserError: the metadata of two runs disagree, or they and the store.
    """
    first = runs[0]
    for found in runs:
        if found.metadata.exclusive != first.metadata.exclusive:
            here, there = (json.dumps(run.metadata.exclusive) for run in (found, first))
            raise UserError(
                f"{found.folder}/classifier.json: exclusive is {here}, and {there} in {first.folder}; expected the "
                "same, that of the store that both were trained on; run classify again"
            )
    if cohort.has_store and first.metadata.exclusive != cohort.exclusive:
        raise UserError(
            f"{first.folder}/classifier.json: exclusive is {json.dumps(first.metadata.exclusive)}, and "
            f"{json.dumps(cohort.exclusive)} in {cohort.store}; run classify again"
        )
    return first.metadata.exclusive and set(labels) == set(first.labels)


def _same_scans(runs: dict[Key, dict[int, Predictions]], cohort: Cohort) -> list[str]:
    """Return the scans that every classifier was tested on, in each repeat, in manifest order."""
    first = next(iter(runs.values()))
    tested: dict[int, set[str]] = {}
    for fold, found in first.items():
        tested[fold] = set(found.table["scan_id"])
        _check_scans(found, fold, cohort)
    for folds in runs.values():
        if set(folds) != set(first):
            here, there = next(iter(folds.values())).folder, next(iter(first.values())).folder
            raise UserError(f"{here}: tested in folds {sorted(folds)}, {there} in folds {sorted(first)}")
        for fold, found in folds.items():
            if other := tested[fold] ^ set(found.table["scan_id"]):
                raise UserError(
                    f"{found.folder} and {first[fold].folder}: tested on different scans, {len(other)} of them, "
                    f"such as {min(other)}; run classify again for both"
                )
    parts = [set[str]().union(*(tested[fold] for fold in folds)) for folds in repeats_of(first)]
    for number, part in enumerate(parts):
        if other := part ^ parts[0]:
            raise UserError(f"scan {min(other)} is tested in one of repeats 0 and {number} only; expected both")
    return [scan for scan in cohort.manifest["scan_id"] if scan in parts[0]]


def _check_scans(found: Predictions, fold: int, cohort: Cohort) -> None:
    """Every tested scan is a labeled test scan of the fold, and every such scan was tested."""
    file, path = found.folder / "predictions.csv", cohort.store.with_name("manifest.csv")
    names, split = cohort.manifest["scan_id"], cohort.split_of(fold)
    known = dict(zip(names, cohort.manifest["patient"], strict=True))
    side = dict(zip(names, split, strict=True))
    for scan in found.table["scan_id"]:
        if scan not in known:
            raise UserError(f"{file}: test scan {scan} is not in {path}; run classify again")
        if (which := side[scan]) != "test":
            raise UserError(
                f"{file}: test scan {scan} is of patient {known[scan]}, a {which} patient of fold {fold}: its "
                "predictions would be flattered; run classify again"
            )
    if left_out := set(names[cohort.labeled & (split == "test")]) - set(found.table["scan_id"]):
        raise UserError(f"{file}: {len(left_out)} labeled test scans are missing, such as {min(left_out)}")


def _pooled(
    key: Key, folds: dict[int, Predictions], chosen_on: dict[int, Predictions], level: float, scans: list[str],
    labels: list[str], truth: np.ndarray,
) -> Run:  # fmt: skip
    """One classifier's folds as one test set; each fold decides at its own thresholds and temperature."""
    probabilities, calibrated, trained = [], [], []
    decided: dict[str, list[np.ndarray]] = {"chosen": [], "specificity": [], "sensitivity": []}
    columns = [probability_column(label) for label in labels]
    for fold, found in folds.items():
        p = found.table[columns].to_numpy(np.float64)
        probabilities.append(p)
        calibrated.append(_calibrated(found)[:, [found.labels.index(label) for label in labels]])
        by_label = dict(zip(found.labels, found.thresholds(), strict=True))
        y, scored = label_matrix(chosen_on[fold].table, labels), chosen_on[fold].table[columns].to_numpy(np.float64)
        for name, at in decided.items():
            chosen = [
                by_label[label] if name == "chosen" else threshold_at(y[:, k], scored[:, k], name, level)
                for k, label in enumerate(labels)
            ]
            threshold = np.array([np.nan if value is None else value for value in chosen], np.float64)
            at.append(np.where(np.isnan(threshold), np.nan, p >= threshold))
        trained.append(found.metadata.n_train_patients)
    place = pd.Index([scan for found in folds.values() for scan in found.table["scan_id"]]).get_indexer(scans)
    stored = np.concatenate([label_matrix(found.table, labels) for found in folds.values()])[place]
    if not np.array_equal(stored, truth, equal_nan=True):
        row, column = np.argwhere(~((stored == truth) | (np.isnan(stored) & np.isnan(truth))))[0]
        folder = next(iter(folds.values())).folder
        raise UserError(
            f"{folder}: scan {scans[row]} has another {labels[column]} than in the manifest; classify again"
        )
    known = [n for n in trained if n is not None]
    return Run(
        key,
        np.concatenate(probabilities)[place],
        np.concatenate(calibrated)[place],
        {name: np.concatenate(at)[place] for name, at in decided.items()},
        round(float(np.mean(known))) if known else None,
    )


def _calibrated(found: Predictions) -> np.ndarray:
    """Return the probabilities [N, L] of all labels of a classifier at its temperature; NaN where it has none."""
    p, temperature = found.probabilities(), found.temperature()
    if temperature is None:
        return np.full_like(p, np.nan)
    return at_temperature(p, temperature, found.metadata.exclusive)


def tiers(
    settings: EvaluateSettings, manifest: pd.DataFrame, labels: list[str], truth: np.ndarray, patient: np.ndarray
) -> list[str]:
    """Return the tier of each label, by its positive patients in the cohort and its rarer class in the test set.

    A patient with a positive and a negative scan counts for both classes.

    Args:
        truth: float32 [N, L] of the test scans; patient: [N].
    """
    found = []
    for index, label in enumerate(labels):
        positive = manifest["patient"][manifest[label].eq(1).fillna(False).astype(bool)].nunique()
        tested = min(len(set(patient[truth[:, index] == value])) for value in (0, 1))
        if positive < settings.min_positive_patients or tested < settings.min_test_patients:
            found.append(NOT_EVALUABLE)
        else:
            found.append(PRIMARY if positive >= settings.primary_positive_patients else EXPLORATORY)
    return found
