"""The trained classifiers of a results folder, and which of them is the best on validation patients."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octdino.config import Arm, fraction_text
from octdino.data.evaluated_runs import EvaluatedRun, read_evaluated_runs
from octdino.data.predictions import Predictions, read_predictions
from octdino.errors import UserError
from octdino.stats.calibration import logit
from octdino.stats.validation_score import validation_score

CLINICAL = "clinical"


@dataclass(frozen=True)
class TrainedRun:
    """One trained classifier with its predictions.

    Attributes:
        score: macro AUROC, or accuracy of exclusive labels, on validation patients; NaN where there is none.
        compared: whether the last evaluation contains it; folders of arms, seeds and folds that a configuration no
            longer has stay.
    """

    predictions: Predictions
    score: float
    compared: bool = True

    @property
    def arm(self) -> str:
        """{init}-{mode}."""
        return self.predictions.metadata.arm

    @property
    def key(self) -> tuple[str, str, float]:
        """Arm, backbone and fraction: what the runs of all folds and seeds have in common."""
        metadata = self.predictions.metadata
        return metadata.arm, metadata.backbone, metadata.fraction

    @property
    def name(self) -> str:
        """Its folder below classify/."""
        metadata = self.predictions.metadata
        run = f"fold{metadata.fold}-seed{metadata.seed}"
        return f"{metadata.arm}/{metadata.backbone}/f{fraction_text(metadata.fraction)}/{run}"


@dataclass(frozen=True)
class Wanted:
    """Which run is asked for; None leaves the choice to validation patients, and takes the first fold and seed."""

    arm: str | None = None
    backbone: str | None = None
    fraction: float | None = None
    fold: int | None = None
    seed: int | None = None


def read_runs(results: Path) -> list[TrainedRun]:
    """Read all classifiers below results/{cohort}/classify but the clinical baselines, in order of their names.

    Raises:
        UserError: there is none, or a file is damaged.
    """
    paths = sorted(results.glob("classify/*/*/*/*/classifier.json"))
    folders = [path.parent for path in paths if path.parents[3].name != CLINICAL]
    if not folders:
        raise UserError(f"{results}: no trained classifier below classify/; expected a cohort's results/{{cohort}}")
    evaluated = read_evaluated_runs(results)
    return [
        TrainedRun(each, _score(each), evaluated is None or EvaluatedRun.of(each.metadata) in evaluated)
        for each in map(read_predictions, folders)
    ]


def without_stale(runs: list[TrainedRun]) -> list[TrainedRun]:
    """Return the runs that the last evaluation contains; all of them where it contains none."""
    return [run for run in runs if run.compared] or runs


def _score(predictions: Predictions) -> float:
    val = predictions.take("val")
    if not len(val.table):
        return float("nan")
    return validation_score(val.truth(), logit(val.probabilities()), predictions.metadata.exclusive)


def mean_scores(runs: list[TrainedRun]) -> dict[tuple[str, str, float], float]:
    """Return the mean validation score over folds and seeds of each arm, backbone and fraction."""
    scores: dict[tuple[str, str, float], list[float]] = {}
    for run in runs:
        scores.setdefault(run.key, []).append(run.score)
    return {key: float(np.mean(values)) for key, values in scores.items()}


def choose(runs: list[TrainedRun], wanted: Wanted) -> TrainedRun:
    """Return the run that is wanted; of several arms the best on validation patients, of its runs the first.

    Only runs of the last evaluation are candidates; a named arm may be another if it has none there. They are compared
    at the largest fraction that is left, by the mean over folds and seeds: the best single run would be that with the
    easiest validation patients.

    Raises:
        UserError: there is no such run.
    """
    left = runs
    if wanted.arm is None:
        left = without_stale(runs)
    for name in ("arm", "backbone", "fraction", "fold", "seed"):
        value = getattr(wanted, name)
        if value is None:
            continue
        of_value = [run for run in left if getattr(run.predictions.metadata, name) == value]
        if not of_value:
            there = sorted({str(getattr(run.predictions.metadata, name)) for run in left})
            raise UserError(f"--{name}: {value}: no such classifier; expected {', '.join(there)}")
        left = of_value
    left = without_stale(left)
    largest = max(run.predictions.metadata.fraction for run in left)
    left = [run for run in left if run.predictions.metadata.fraction == largest]
    means = mean_scores(left)
    known = {key: value for key, value in means.items() if not np.isnan(value)} or means
    best = max(known, key=lambda key: (known[key], Arm.named(key[0]).mode == "linear"))
    own = [run for run in left if run.key == best]
    return min(own, key=lambda run: (run.predictions.metadata.fold, run.predictions.metadata.seed))
