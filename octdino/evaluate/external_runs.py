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
from octdino.data.predictions import Predictions
from octdino.data.schemas.csv_schemas import EXTERNAL_SCORES
from octdino.data.schemas.external_metadata import ExternalScoresMetadata
from octdino.data.schemas.metadata import read_metadata
from octdino.errors import UserError
from octdino.evaluate.classifier_runs import (
    Key,
    MappedFold,
    Run,
    by_classifier,
    pooled_run,
    probabilities_of,
    repeats_of,
)
from octdino.evaluate.comparable_runs import (
    NOT_EVALUABLE,
    PRIMARY,
    TestSet,
    common_test_set,
    compared_labels,
    read_all_predictions,
    tiers,
)
from octdino.evaluate.label_maps import LabelMap, label_map


@dataclass(frozen=True)
class Classifiers:
    """The internal cohort, and its classifiers by key and fold; the test set has the scans of one repeat."""

    cohort: Cohort
    test: TestSet
    folds: dict[Key, dict[int, Predictions]]


@dataclass(frozen=True)
class CohortPair:
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
    """Read the internal cohort and the predictions of its classifiers, in the order of `folders`.

    Raises:
        UserError: see `octdino.evaluate.comparable_runs.common_test_set`; or a classifier has no weights.
    """
    cohort = read_cohort(manifest.with_name("scans.h5"), needs_store=False)
    compared_labels(settings, cohort)
    predictions = read_all_predictions(folders)
    for one in predictions:
        if one.metadata.weights_sha256 is None:
            raise UserError(f"{one.folder}: has no weights to score other scans with; leave it out")
    folds = by_classifier(predictions)
    every_label = settings.model_copy(update={"labels": None})  # a label map may need any of them
    return Classifiers(cohort, common_test_set(every_label, cohort, folds), folds)


def read_cohort_pair(settings: EvaluateSettings, classifiers: Classifiers, folder: Path) -> CohortPair:
    """Read an external cohort and its scores.

    Args:
        folder: results/{cohort}/external/{name}.

    Raises:
        UserError: a file is missing or damaged, a label of the map is unknown, or scores are of other scans or weights.
    """
    name = folder.name
    cohort = read_cohort(folder / "cohort" / "scans.h5")
    first = next(iter(next(iter(classifiers.folds.values())).values())).metadata
    configured = next((one.labels for one in settings.external if one.name == name), {})
    labels = label_map(configured, cohort.labels, first.labels, name, settings.labels)
    truth = label_matrix(cohort.manifest, labels.labels)
    kept = (~np.isnan(truth)).any(1)
    if not kept.any():
        raise UserError(f"{folder / 'cohort' / 'manifest.csv'}: no scan has a label among {', '.join(labels.labels)}")
    internal_runs, external_runs = [], []
    flagged: dict[Key, list[np.ndarray]] = defaultdict(list)
    accepted: dict[Key, list[float | None]] = defaultdict(list)
    scans = classifiers.test.rows["scan_id"].tolist()
    for key, folds in classifiers.folds.items():
        mapped = {fold: MappedFold.of(one, labels, settings.operating_point) for fold, one in folds.items()}
        for repeat in repeats_of(folds):
            internal_runs.append(pooled_run([mapped[fold] for fold in repeat], scans))
        for fold, one in folds.items():
            p, distance, share = _scores(folder, one, cohort)
            external_runs.append(mapped[fold].run(p[kept]))
            flagged[key].append(distance > 1)
            accepted[key].append(share)
    return CohortPair(
        name, cohort, labels, first.exclusive, _internal_test(settings, classifiers, labels),
        _external_test(settings, cohort, labels, truth, kept), internal_runs, external_runs,
        pd.factorize(cohort.manifest["patient"])[0], dict(flagged), dict(accepted),
    )  # fmt: skip


def _scores(folder: Path, predictions: Predictions, cohort: Cohort) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return the probabilities [S, L] and distances [S] of the external scans, and the share of accepted test scans."""
    own = predictions.metadata
    run = f"fold{own.fold}-seed{own.seed}"
    path = folder / "scores" / own.arm / own.backbone / f"f{fraction_text(own.fraction)}" / run / "scores.csv"
    metadata = read_metadata(path.with_name("scores.json"), ExternalScoresMetadata, "score")
    table = read_table(path, EXTERNAL_SCORES)
    if metadata.weights_sha256 != own.weights_sha256:
        raise UserError(f"{path}: by other weights than those of {predictions.folder}; run octdino score again")
    same = table["scan_id"].tolist() == cohort.manifest["scan_id"].tolist()
    if metadata.source != cohort.source or not same or metadata.labels != own.labels:
        raise UserError(f"{path}: of other scans than {cohort.store}; run octdino score again")
    if missing := [label for label in own.labels if probability_column(label) not in table]:
        raise UserError(f"{path}: no column {probability_column(missing[0])}; run octdino score again")
    return (
        probabilities_of(table, own.labels),
        table["out_of_distribution"].to_numpy(np.float64),
        metadata.accepted_test,
    )


def _internal_test(settings: EvaluateSettings, classifiers: Classifiers, labels: LabelMap) -> TestSet:
    """Return the internal test set with the external labels."""
    whole, test = classifiers.cohort.manifest, classifiers.test
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
