"""Every arm, label and metric on the same resamples of the test patients: values, intervals, paired differences."""

import logging
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.config import EvaluateSettings
from octdino.evaluate.bootstrap import holm, p_value
from octdino.evaluate.figures import draw_figures
from octdino.evaluate.gather import NOT_EVALUABLE, Key, Run, TestSet, gather
from octdino.evaluate.metrics import ACCURACY, NAMES, accuracy, decision_metrics, ranking_metrics
from octdino.resampling import draw_patients, interval
from octdino.tables import COMPARISON, METRICS, write_table

log = logging.getLogger("octdino.evaluate")

CLINICAL = "clinical"
MACRO = "macro"


def evaluate(settings: EvaluateSettings, manifest: Path, classifiers: list[Path], out: Path) -> None:
    """Compare classifiers: metrics.csv, comparison.csv and figures (SVG) in `out`.

    Intervals are percentiles over resamples of test patients; all classifiers and labels share the resamples, so a
    difference between two arms is paired. Macro is the mean over one fixed set of labels, the evaluable ones; in a
    resample where one of them has a single class it is the mean over the others. With several seeds, rows without a
    seed are the mean over seeds, resample by resample.

    Args:
        manifest: the cohort's manifest.csv; splits.csv stands beside it.
        classifiers: results folders (or the predictions.csv in them), any number of arms, fractions, folds and seeds.

    Raises:
        UserError: see `gather`.
    """
    test, runs = gather(settings, manifest, classifiers)
    times = draw_patients(int(test.patient.max()) + 1, settings.resamples, settings.seed)
    scores = replicates(test, runs, times)
    with_mean = {**scores, **seed_means(scores)}
    metrics = metrics_table(settings, test, with_mean)
    comparison = comparison_table(settings, test, with_mean)
    write_table(out / "metrics.csv", metrics, METRICS)
    write_table(out / "comparison.csv", comparison, COMPARISON)
    draw_figures(settings, test, runs, metrics, comparison, out)
    counts = ", ".join(f"{test.tiers.count(tier)} {tier}" for tier in dict.fromkeys(test.tiers))
    log.info("%d classifiers, %d test patients, labels: %s", len(runs), len(times), counts or "none")


def replicates(test: TestSet, runs: list[Run], times: np.ndarray) -> dict[Key, np.ndarray]:
    """Every metric of every classifier: float64 [metrics, 1 + B, L + 1]; row 0 is the test set, the last is macro.

    The metrics are those of `names`; the accuracy is one over all labels and stands at macro.
    """
    found = {}
    for run in runs:
        values = np.full((len(names(test)), times.shape[1], len(test.labels) + 1), np.nan)
        for index in np.flatnonzero(test.evaluable):
            known = ~np.isnan(test.truth[:, index])
            truth, patient = test.truth[known, index] == 1, test.patient[known]
            values[:2, :, index] = ranking_metrics(truth, run.probabilities[known, index], patient, times)
            decided = run.decided[known, index]
            if not np.isnan(decided).any():
                values[2:4, :, index] = decision_metrics(truth, decided == 1, patient, times)
        found[run.key] = values
    # A label without a threshold somewhere is in nobody's macro: the means must be over the same labels.
    complete = np.all([np.isfinite(values[:, 0]) for values in found.values()], axis=0)  # [metrics, L + 1]
    for values in found.values():
        values[:, :, -1] = mean_of_known(np.where(complete[:, None, :], values, np.nan)[:, :, :-1])
    if test.exclusive:
        for run in runs:
            right = run.probabilities.argmax(1) == test.truth.argmax(1)
            found[run.key][-1, :, -1] = accuracy(right, test.patient, times)
    return found


def names(test: TestSet) -> tuple[str, ...]:
    """The metrics, in order."""
    return (*NAMES, ACCURACY) if test.exclusive else NAMES


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where nothing is known."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(known, values, 0).sum(-1) / known.sum(-1)
    return mean


def seed_means(scores: dict[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """The mean over seeds, resample by resample, for what has several seeds."""
    means = {}
    for key, seeds in groupby(sorted(scores), lambda key: key._replace(seed=None)):
        if len(same := list(seeds)) > 1:
            means[key] = np.mean([scores[one] for one in same], axis=0)
    return means


def metrics_table(settings: EvaluateSettings, test: TestSet, scores: dict[Key, np.ndarray]) -> pd.DataFrame:
    """One row a classifier, label and metric; see METRICS."""
    counts = [_counts(test, index) for index in range(len(test.labels))] + [_macro_counts(test)]
    rows: list[dict[str, Any]] = []
    for key, values in scores.items():
        low, high = interval(values[:, 1:].swapaxes(0, 1), settings.confidence)
        drawn = np.isfinite(values[:, 1:]).sum(axis=1)
        for index, label in enumerate([*test.labels, MACRO]):
            for which, metric in enumerate(names(test)):
                if metric == ACCURACY and label != MACRO:
                    continue
                numbers = {"value": values[which, 0, index], "low": low[which, index], "high": high[which, index]}
                if np.isnan(numbers["value"]):
                    numbers = dict.fromkeys(numbers, np.nan)
                rows.append(
                    {**key._asdict(), "fold": test.fold, "label": label, "metric": metric, **numbers, **counts[index]}
                    | {"n_resamples": drawn[which, index]}
                )
    return pd.DataFrame(rows)


def _counts(test: TestSet, index: int) -> dict[str, Any]:
    truth = test.truth[:, index]
    known, positive = ~np.isnan(truth), truth == 1
    return {
        "n_patients": len(set(test.patient[known])),
        "n_scans": int(known.sum()),
        "n_positive": int(positive.sum()),
        "n_positive_patients": len(set(test.patient[positive])),
        "tier": test.tiers[index],
    }


def _macro_counts(test: TestSet) -> dict[str, Any]:
    known = (~np.isnan(test.truth[:, test.evaluable])).any(axis=1)
    return {
        "n_patients": len(set(test.patient[known])),
        "n_scans": int(known.sum()),
        "n_positive": None,
        "n_positive_patients": None,
        "tier": None if test.evaluable.any() else NOT_EVALUABLE,
    }


def comparison_table(settings: EvaluateSettings, test: TestSet, scores: dict[Key, np.ndarray]) -> pd.DataFrame:
    """One row a pair of arms, label and metric; see COMPARISON. Labels that are not evaluable have none."""
    macro = _macro_counts(test)
    counts = [_counts(test, index) for index in range(len(test.labels))] + [macro]
    rows: list[dict[str, Any]] = []
    for key, reference in pairs(settings.reference, scores):
        difference = scores[key] - scores[reference]
        low, high = interval(difference[:, 1:].swapaxes(0, 1), settings.confidence)
        p = p_value(difference[:, 1:].swapaxes(0, 1))
        drawn = np.isfinite(difference[:, 1:]).sum(axis=1)
        for which, index in np.argwhere(np.isfinite(difference[:, 0])):
            rows.append(
                {
                    **key._asdict(),
                    "reference": reference.arm,
                    "fold": test.fold,
                    "label": [*test.labels, MACRO][index],
                    "metric": names(test)[which],
                    "difference": difference[which, 0, index],
                    "low": low[which, index],
                    "high": high[which, index],
                    "p": p[which, index],
                    "n_patients": counts[index]["n_patients"],
                    "n_scans": counts[index]["n_scans"],
                    "n_resamples": drawn[which, index],
                }
            )
    table = pd.DataFrame(rows, columns=[column.name for column in COMPARISON])
    # One family: all arms (and backbones) against the same reference in the same label, metric, fraction and seed.
    family = table.groupby(["reference", "label", "metric", "fraction", "seed"], dropna=False)["p"]
    table["p_adjusted"] = family.transform(lambda p: holm(p.to_numpy(np.float64))).astype(float)
    return table


def pairs(reference: str, scores: dict[Key, np.ndarray]) -> list[tuple[Key, Key]]:
    """Every arm with the reference arm of the same backbone, fraction and seed, and with the clinical control.

    The control knows no backbone; where it was not run with a seed, its first seed stands in.
    """
    found = []
    for key in scores:
        if key.arm == CLINICAL:
            continue
        other = key._replace(arm=reference)
        if other != key and other in scores:
            found.append((key, other))
        controls = [one for one in scores if one.arm == CLINICAL and one.fraction == key.fraction]
        if controls:
            found.append((key, min(controls, key=lambda one: (one.seed != key.seed, one.seed is None, one.seed or 0))))
    return found
