"""Differences between runs of equal arms, from their predictions, with the bootstrap of the evaluate stage."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from octdino.cli.side_by_side.finished_runs import FinishedRun
from octdino.cli.side_by_side.same_patients import on_the_same_scans
from octdino.config import EvaluateSettings
from octdino.data.schemas.evaluate_schemas import SIDE_BY_SIDE
from octdino.evaluate.classifier_runs import Key, Run
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.resampled_scores import (
    bootstrap_scores,
    complete_labels,
    interval_bounds,
    is_compared,
    make_resample_weights,
    metric_names,
    score_columns,
    seed_means,
)
from octdino.stats.bootstrap import p_value
from octdino.stats.significance import holm

APART = 1_000_003  # between seeds of bootstraps that must be independent


@dataclass(frozen=True)
class Compared:
    """One run as it is compared with the first.

    Attributes:
        run: the folder.
        test, classifiers: those that scores are of; of a paired run the first run's test set.
        settings: of the bootstrap; its seed differs from the first run's where test sets are resampled independently.
        reason: why differences are not paired; empty where they are.
    """

    run: FinishedRun
    test: TestSet
    classifiers: list[Run]
    settings: EvaluateSettings
    reason: str

    @property
    def paired(self) -> bool:
        """Return whether differences to the first run are paired."""
        return not self.reason


def matched(settings: EvaluateSettings, runs: list[FinishedRun]) -> list[Compared]:
    """Return every run, paired with the first where their test patients are the same by content."""
    first = runs[0]
    found = [Compared(first, first.test, first.classifiers, settings, "")]
    for number, run in enumerate(runs[1:], 1):
        match = on_the_same_scans(run, first)
        if match.classifiers is not None:
            found.append(Compared(run, first.test, match.classifiers, settings, ""))
        else:
            apart = settings.model_copy(update={"seed": settings.seed + number * APART})
            found.append(Compared(run, run.test, run.classifiers, apart, match.reason))
    return found


def difference_table(runs: list[Compared]) -> pd.DataFrame:
    """Return one row per run but the first, arm, backbone, fraction, label and metric; see SIDE_BY_SIDE.

    Scores are means over seeds. Macro is over the labels that are evaluable in every run. Seeds of two paired runs are
    resampled together where there are as many, as seeds of two arms are.
    """
    complete = np.all([complete_labels(one.settings, one.test, one.classifiers) for one in runs], axis=0)
    weights = {id(one.test): make_resample_weights(one.settings, one.test.patients) for one in runs}
    fractions = sorted({key.fraction for one in runs for key in _keys(one)})
    rows: list[dict[str, Any]] = []
    for fraction in fractions:  # one at a time, to save memory
        scored = [_scores(one, fraction, runs[0], weights[id(one.test)], complete) for one in runs]
        for one, scores in zip(runs[1:], scored[1:], strict=True):
            for key in sorted(scores.keys() & scored[0].keys()):
                rows += _rows(runs[0], one, key, scored[0][key], scores[key])
    table = pd.DataFrame(rows, columns=[column.name for column in SIDE_BY_SIDE])
    family = table.groupby(["run", "label", "metric", "fraction"], dropna=False)["p"]
    table["p_adjusted"] = family.transform(lambda p: holm(p.to_numpy(np.float64))).astype(float)
    return table


def _keys(one: Compared) -> set[Key]:
    return {run.key for run in one.classifiers}


def seeds_of(one: Compared, key: Key) -> int:
    """Return the number of seeds of a classifier."""
    return len({other.seed for other in _keys(one) if other._replace(seed=None) == key})


def _scores(
    one: Compared, fraction: float, first: Compared, weights: np.ndarray, complete: np.ndarray
) -> dict[Key, np.ndarray]:
    """Return the mean over seeds of every classifier at the fraction, in every resample, see `bootstrap_scores`."""
    classifiers = [run for run in one.classifiers if run.key.fraction == fraction]
    if not classifiers:
        return {}
    scores = bootstrap_scores(one.settings, one.test, classifiers, weights, complete)
    groups = Counter(key._replace(seed=None) for key in scores)
    alone = {key._replace(seed=None): values for key, values in scores.items() if groups[key._replace(seed=None)] == 1}
    found = dict(alone)
    for key, number in groups.items():
        if number > 1:
            same = {other: values for other, values in scores.items() if other._replace(seed=None) == key}
            together = seeds_of(first, key) == number
            apart = one.settings if together else one.settings.model_copy(update={"seed": one.settings.seed + APART})
            found |= seed_means(apart, same)
    return found


def _rows(first: Compared, one: Compared, key: Key, before: np.ndarray, after: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows of one classifier: scores in both runs and their difference, of every label and metric."""
    settings, patients = one.settings, min(first.test.patients, one.test.patients)
    columns = 1 + settings.resamples
    if one.paired:
        difference = after - before
    else:  # the jackknife of BCa leaves out other patients in each run
        settings = settings.model_copy(update={"interval": "percentile"})
        difference = after[:, :columns] - before[:, :columns]
    low, high, resamples = interval_bounds(settings, patients, difference)
    p = p_value(difference[:, 1:columns].swapaxes(0, 1), patients if settings.small_sample_correction else None)
    ends = [interval_bounds(part.settings, part.test.patients, values)[:2] for part, values in
            ((one, after), (first, before))]  # fmt: skip
    metrics, labels = metric_names(settings, one.test.exclusive), score_columns(one.test.labels)
    common = {
        "run": one.run.name, "reference_run": first.run.name, "arm": key.arm, "backbone": key.backbone,
        "fraction": key.fraction, "paired": int(one.paired), "n_patients": one.test.patients,
        "n_reference_patients": first.test.patients, "n_seeds": seeds_of(one, key),
        "n_reference_seeds": seeds_of(first, key),
    }  # fmt: skip
    rows = []
    for place in np.argwhere(np.isfinite(difference[:, 0])):
        which, index = int(place[0]), int(place[1])
        if not is_compared(metrics[which]):
            continue
        (value_low, value_high), (reference_low, reference_high) = ((end[which, index] for end in two) for two in ends)
        rows.append(
            {
                **common, "label": labels[index], "metric": metrics[which], "value": after[which, 0, index],
                "value_low": value_low, "value_high": value_high, "reference_value": before[which, 0, index],
                "reference_low": reference_low, "reference_high": reference_high,
                "difference": difference[which, 0, index], "low": low[which, index], "high": high[which, index],
                "p": p[which, index], "n_resamples": resamples[which, index],
            }
        )  # fmt: skip
    return rows
