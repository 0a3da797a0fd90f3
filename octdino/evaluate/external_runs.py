"""Read classifiers and their scores of an external cohort: two test sets with the same labels, and runs on both.

A cross-validation has one model per fold. On the external cohort each of them is scored by itself, at its own
temperature and thresholds, and the metrics are averaged: internal test scans are scored by one model each as well. The
mean of the folds' probabilities would be an ensemble, which the internal test has not measured.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from octdino.config import EvaluateSettings, fraction_text
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import label_matrix, probability_column, read_table
from octdino.data.predictions import Predictions, read_predictions
from octdino.data.schemas.csv_schemas import EXTERNAL_SCORES
from octdino.data.schemas.external_metadata import ExternalScoresMetadata
from octdino.data.schemas.metadata import read_metadata
from octdino.errors import UserError
from octdino.evaluate.comparable_runs import (
    NOT_EVALUABLE,
    PRIMARY,
    Key,
    Run,
    TestSet,
    key_of,
    read_runs,
    repeats_of,
    tiers,
)
from octdino.evaluate.label_maps import LabelMap, label_map
from octdino.stats.thresholds import choose_threshold, threshold_at

KINDS = ("chosen", "specificity", "sensitivity")  # of thresholds, as `Run.decided` has them


@dataclass(frozen=True)
class Classifiers:
    """The internal cohort, and its classifiers by key and fold; the test set has the scans of one repeat."""

    cohort: Cohort
    test: TestSet
    folds: dict[Key, dict[int, Predictions]]


@dataclass(frozen=True)
class BothSides:
    """One external cohort beside the internal one, with the labels of the external cohort that are tested.

    Attributes:
        internal, external: the two test sets; the external one has the scans with a label that is tested.
        internal_runs: one per classifier and repeat; external_runs: one per classifier and fold.
        patient: int [S], the patient of each external scan, labeled or not.
        flagged: of each classifier and fold, whether each of these scans is out of distribution.
        accepted: of each classifier and fold, the share of internal test scans that is not; None without any.
    """

    name: str
    cohort: Cohort
    labels: LabelMap
    exclusive: bool
    internal: TestSet
    external: TestSet
    internal_runs: list[Run]
    external_runs: list[Run]
    patient: np.ndarray
    flagged: dict[Key, list[np.ndarray]]
    accepted: dict[Key, list[float | None]]


def read_classifiers(settings: EvaluateSettings, manifest: Path, folders: Sequence[Path]) -> Classifiers:
    """Read the internal cohort and the predictions of its classifiers.

    Raises:
        UserError: see `octdino.evaluate.comparable_runs.read_runs`.
    """
    cohort = read_cohort(manifest.with_name("scans.h5"), needs_store=False)
    test, _ = read_runs(settings.model_copy(update={"labels": None}), cohort, list(folders))
    folds: dict[Key, dict[int, Predictions]] = defaultdict(dict)
    for folder in folders:
        found = read_predictions(folder.parent if folder.is_file() else folder)
        if found.metadata.weights_sha256 is None:
            raise UserError(f"{found.folder}: has no weights to score other scans with; leave it out")
        key, fold = key_of(found)
        folds[key][fold] = found
    return Classifiers(cohort, test, dict(sorted(folds.items())))


def read_both_sides(settings: EvaluateSettings, known: Classifiers, folder: Path) -> BothSides:
    """Read an external cohort and its scores.

    Args:
        folder: results/{cohort}/external/{name}.

    Raises:
        UserError: a file is missing or damaged, a label of the map is unknown, or scores are of other scans or weights.
    """
    name = folder.name
    cohort = read_cohort(folder / "cohort" / "scans.h5")
    first = next(iter(next(iter(known.folds.values())).values())).metadata
    given = next((one.labels for one in settings.external if one.name == name), {})
    labels = label_map(given, cohort.labels, first.labels, name)
    truth = label_matrix(cohort.manifest, labels.labels)
    kept = (~np.isnan(truth)).any(1)
    if not kept.any():
        raise UserError(f"{folder / 'cohort' / 'manifest.csv'}: no scan has a label among {', '.join(labels.labels)}")
    internal_runs, external_runs = [], []
    flagged: dict[Key, list[np.ndarray]] = defaultdict(list)
    accepted: dict[Key, list[float | None]] = defaultdict(list)
    scans = known.test.rows["scan_id"].tolist()
    for key, folds in known.folds.items():
        at = {fold: thresholds(found, labels, settings.operating_point) for fold, found in folds.items()}
        for repeat in repeats_of({fold: found.take("test") for fold, found in folds.items()}):
            internal_runs.append(_internal(key, {fold: folds[fold] for fold in repeat}, labels, at, scans))
        for fold, found in folds.items():
            p, distance, share = _scores(folder, found, cohort)
            external_runs.append(_decided(key, p[kept], found, labels, at[fold]))
            flagged[key].append(distance > 1)
            accepted[key].append(share)
    return BothSides(
        name, cohort, labels, first.exclusive, _internal_test(settings, known, labels),
        _external_test(settings, cohort, labels, truth, kept), internal_runs, external_runs,
        pd.factorize(cohort.manifest["patient"])[0], dict(flagged), dict(accepted),
    )  # fmt: skip


def thresholds(found: Predictions, labels: LabelMap, level: float) -> dict[str, np.ndarray]:
    """Return the thresholds [M] of each kind, of internal validation patients; NaN where there is none.

    A label that stands for one internal label has the classifier's own; where it stands for several, the threshold of
    their combined probability is chosen on the same patients by the same rule.
    """
    val, metadata = found.take("val"), found.metadata
    truth = labels.truth(label_matrix(val.table, labels.internal))
    p = labels.probabilities(_probabilities(val.table, labels.internal), metadata.exclusive)
    chosen: dict[str, list[float | None]] = {kind: [] for kind in KINDS}
    for place, group in enumerate(labels.groups):
        y, score = truth[:, place], p[:, place]
        own = metadata.thresholds[labels.internal[group[0]]]
        chosen["chosen"].append(own if len(group) == 1 else choose_threshold(y, score, metadata.settings.threshold))
        for kind in KINDS[1:]:
            chosen[kind].append(threshold_at(y, score, kind, level))
    return {kind: np.array([np.nan if t is None else t for t in values]) for kind, values in chosen.items()}


def _decided(key: Key, p: np.ndarray, found: Predictions, labels: LabelMap, at: dict[str, np.ndarray]) -> Run:
    """Return a run of probabilities [N, L] of internal labels, mapped."""
    exclusive = found.metadata.exclusive
    mapped = labels.probabilities(p, exclusive)
    decided = {kind: np.where(np.isnan(t), np.nan, mapped >= t) for kind, t in at.items()}
    calibrated = labels.calibrated(p, found.temperature(), exclusive)
    return Run(key, mapped, calibrated, decided, found.metadata.n_train_patients)


def _internal(
    key: Key, folds: dict[int, Predictions], labels: LabelMap, at: dict[int, dict[str, np.ndarray]], scans: list[str]
) -> Run:
    """Return the folds of one repeat as one run on the internal test set."""
    tested = {fold: found.take("test") for fold, found in folds.items()}
    runs = [
        _decided(key, _probabilities(found.table, labels.internal), found, labels, at[fold])
        for fold, found in tested.items()
    ]
    place = pd.Index([scan for found in tested.values() for scan in found.table["scan_id"]]).get_indexer(scans)
    return Run(
        key,
        np.concatenate([run.probabilities for run in runs])[place],
        np.concatenate([run.calibrated for run in runs])[place],
        {kind: np.concatenate([run.decided[kind] for run in runs])[place] for kind in KINDS},
        runs[0].n_train_patients,
    )


def _probabilities(table: pd.DataFrame, labels: list[str]) -> np.ndarray:
    return table[[probability_column(label) for label in labels]].to_numpy(np.float64)


def _scores(folder: Path, found: Predictions, cohort: Cohort) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return the probabilities [S, L] and distances [S] of the external scans, and the share of accepted test scans."""
    own = found.metadata
    run = f"fold{own.fold}-seed{own.seed}"
    path = folder / "scores" / own.arm / own.backbone / f"f{fraction_text(own.fraction)}" / run / "scores.csv"
    metadata = read_metadata(path.with_name("scores.json"), ExternalScoresMetadata, "score")
    table = read_table(path, EXTERNAL_SCORES)
    if metadata.weights_sha256 != own.weights_sha256:
        raise UserError(f"{path}: by other weights than those of {found.folder}; run octdino score again")
    same = table["scan_id"].tolist() == cohort.manifest["scan_id"].tolist()
    if metadata.source != cohort.source or not same or metadata.labels != own.labels:
        raise UserError(f"{path}: of other scans than {cohort.store}; run octdino score again")
    if missing := [label for label in own.labels if probability_column(label) not in table]:
        raise UserError(f"{path}: no column {probability_column(missing[0])}; run octdino score again")
    return _probabilities(table, own.labels), table["out_of_distribution"].to_numpy(np.float64), metadata.accepted_test


def _internal_test(settings: EvaluateSettings, known: Classifiers, labels: LabelMap) -> TestSet:
    """Return the internal test set with the external labels."""
    whole, test = known.cohort.manifest, known.test
    every = pd.DataFrame(labels.truth(label_matrix(whole, labels.internal)), columns=labels.labels)
    truth = labels.truth(label_matrix(test.rows, labels.internal))
    every["patient"] = whole["patient"].to_numpy()
    return TestSet(
        fold=test.fold,
        labels=labels.labels,
        truth=truth,
        patient=test.patient,
        tiers=tiers(settings, every, labels.labels, truth, test.rows["patient"].to_numpy()),
        unit=test.unit,
        rows=test.rows,
        words=test.words,
    )


def _external_test(
    settings: EvaluateSettings, cohort: Cohort, labels: LabelMap, truth: np.ndarray, kept: np.ndarray
) -> TestSet:
    """Return the external test set: the labeled scans of all patients."""
    rows = cohort.manifest[kept].reset_index(drop=True)
    patient, truth = pd.factorize(rows["patient"])[0], truth[kept]
    found = []
    for column in truth.T:
        least = min(len(set(patient[column == value])) for value in (0, 1))
        found.append(NOT_EVALUABLE if least < settings.min_test_patients else PRIMARY)
    return TestSet(
        fold="0", labels=labels.labels, truth=truth, patient=patient, tiers=found, unit=cohort.unit, rows=rows,
        words=cohort.words,
    )  # fmt: skip
