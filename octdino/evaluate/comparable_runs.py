"""Read the predictions of all runs and check that they can be compared: same test scans, same labels, no leakage."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from octdino.config import EvaluateSettings
from octdino.data.cohort_reader import Cohort
from octdino.data.cohort_words import SCAN_WORDS, Words
from octdino.data.csv_io import label_matrix
from octdino.data.predictions import Predictions, read_predictions
from octdino.data.sampling_units import PATIENT, Unit
from octdino.errors import UserError
from octdino.evaluate.classifier_runs import Key, MappedFold, Run, by_classifier, pooled_run, repeats_of
from octdino.evaluate.label_maps import LabelMap

PRIMARY, EXPLORATORY, NOT_EVALUABLE = "primary", "exploratory", "not evaluable"


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


def read_runs(settings: EvaluateSettings, cohort: Cohort, folders: Sequence[Path]) -> tuple[TestSet, list[Run]]:
    """Return the test set and the predictions of all runs on it.

    Args:
        folders: results folders of classifiers, or the predictions.csv in them.

    Raises:
        UserError: see `read_predictions` and `common_test_set`.
    """
    classifiers = by_classifier(read_all_predictions(folders))
    test = common_test_set(settings, cohort, classifiers)
    scans, runs = test.rows["scan_id"].tolist(), []
    repeats = repeats_of(next(iter(classifiers.values())))
    for _, folds in sorted(classifiers.items()):
        mapped = {
            fold: MappedFold.of(one, LabelMap.same(one.labels, test.labels), settings.operating_point)
            for fold, one in folds.items()
        }
        for repeat in repeats:
            runs.append(pooled_run([mapped[fold] for fold in repeat], scans))
    return test, runs


def read_all_predictions(folders: Sequence[Path]) -> list[Predictions]:
    """Return the predictions in the folders of classifiers, or beside the predictions.csv that are named.

    Raises:
        UserError: see `read_predictions`.
    """
    return [read_predictions(folder.parent if folder.is_file() else folder) for folder in folders]


def common_test_set(
    settings: EvaluateSettings, cohort: Cohort, classifiers: dict[Key, dict[int, Predictions]]
) -> TestSet:  # fmt: skip
    """Return the test set of all classifiers.

    Args:
        classifiers: their predictions by fold, see `by_classifier`.

    Raises:
        UserError: nothing to compare, a label without predictions, a scan that is not a test scan of the manifest,
            labels other than the manifest's, or arms tested on different scans.
    """
    manifest, manifest_file = cohort.manifest, cohort.store.with_name("manifest.csv")
    labels = compared_labels(settings, cohort)
    for one in (one for folds in classifiers.values() for one in folds.values()):
        if missing := [label for label in labels if label not in one.labels]:
            raise UserError(f"{one.folder}: no predictions of {', '.join(missing)}, a label in {manifest_file}")
    if not classifiers:
        raise UserError("nothing to evaluate: name the folders of at least one classifier")
    tested = {key: {fold: one.take("test") for fold, one in folds.items()} for key, folds in classifiers.items()}
    rows = manifest.set_index("scan_id").loc[_same_scans(tested, cohort)]
    for one in (one for folds in tested.values() for one in folds.values()):
        _check_truth(one, rows, labels)
    truth = label_matrix(rows, labels)
    return TestSet(
        fold=str(next(iter(first))) if len(first := next(iter(tested.values()))) == 1 else "pooled",
        labels=labels,
        truth=truth,
        patient=pd.factorize(rows["patient"])[0],
        tiers=tiers(settings, manifest, labels, truth, rows["patient"].to_numpy()),
        exclusive=_exclusive([one for folds in tested.values() for one in folds.values()], labels, cohort),
        unit=cohort.unit,
        rows=rows.reset_index(),
        words=cohort.words,
    )


def compared_labels(settings: EvaluateSettings, cohort: Cohort) -> list[str]:
    """Return the cohort's labels, or those of them that the settings name.

    Raises:
        UserError: the cohort has no such label.
    """
    labels = cohort.labels
    if unknown := [label for label in settings.labels or [] if label not in labels]:
        path = cohort.store.with_name("manifest.csv")
        raise UserError(f"evaluate.labels: {unknown[0]} is no label of {path}; it has {', '.join(labels)}")
    return labels if settings.labels is None else [label for label in labels if label in settings.labels]


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


def _check_truth(tested: Predictions, rows: pd.DataFrame, labels: list[str]) -> None:
    """Check that the labels in predictions.csv are those of the manifest, whose rows have the scan ids as index."""
    scans = tested.table["scan_id"].tolist()
    stored, truth = label_matrix(tested.table, labels), label_matrix(rows.loc[scans], labels)
    different = ~((stored == truth) | (np.isnan(stored) & np.isnan(truth)))
    if different.any():
        row, column = np.argwhere(different)[0]
        raise UserError(
            f"{tested.folder}: scan {scans[row]} has another {labels[column]} than in the manifest; classify again"
        )


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
