"""Reading of several results folders for a comparison: predictions on their test sets, over the labels of all."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from octdino.config import EvaluateSettings
from octdino.errors import UserError
from octdino.evaluate.classifier_runs import Run
from octdino.evaluate.comparable_runs import NOT_EVALUABLE, TestSet, read_runs
from octdino.report.results_reader import Results, read_results


@dataclass(frozen=True)
class FinishedRun:
    """One results folder with its predictions.

    Attributes:
        name: unique among the folders.
        results: its tables and metadata.
        test: its test set, of the labels that all folders have.
        classifiers: predictions on it.
    """

    name: str
    results: Results
    test: TestSet
    classifiers: list[Run]


def read_finished_runs(settings: EvaluateSettings, folders: list[Path]) -> list[FinishedRun]:
    """Read the folders; labels that one of them lacks are left out of all, and so are tiers of not evaluable ones.

    Raises:
        UserError: fewer than two folders, one of them twice, a folder that is no finished run, or no common label.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} results folder; expected at least two to compare")
    places = [folder.resolve() for folder in folders]
    if twice := [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"{twice[0]}: the same folder twice; expected different ones")
    found = [_read(folder) for folder in folders]
    asked = settings.labels
    common = [
        label
        for label in found[0].cohort.labels
        if all(label in results.cohort.labels for results in found) and (asked is None or label in asked)
    ]
    if not common:
        others = "; ".join(f"{results.root}: {', '.join(results.cohort.labels) or 'none'}" for results in found)
        raise UserError(f"no label that all folders have{'' if asked is None else ' and --labels names'}: {others}")
    chosen = settings.model_copy(update={"labels": common})
    runs = []
    for name, results in zip(_names(folders), found, strict=True):
        test, classifiers = read_runs(chosen, results.cohort, [folder for folder, _ in results.classifiers])
        runs.append(FinishedRun(name, results, test, classifiers))
    return _alike(runs)


def _read(folder: Path) -> Results:
    for name in ("cohort/manifest.csv", "evaluate/metrics.csv"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; expected results/{{cohort}} of a finished run")
    results = read_results(folder)
    if not results.classifiers:
        raise UserError(f"{folder}: no classifier of evaluate/metrics.csv is in classify/; expected a finished run")
    return results


def _names(folders: list[Path]) -> list[str]:
    """Return the last part of each path; the whole path where two have the same."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _alike(runs: list[FinishedRun]) -> list[FinishedRun]:
    """Return the runs with one order of labels, and with a label evaluable where it is in all of them."""
    evaluable = np.all([run.test.evaluable for run in runs], axis=0)
    exclusive = all(run.test.exclusive for run in runs)
    found = []
    for run in runs:
        tiers = [tier if kept else NOT_EVALUABLE for tier, kept in zip(run.test.tiers, evaluable, strict=True)]
        found.append(replace(run, test=replace(run.test, tiers=tiers, exclusive=exclusive)))
    return found
