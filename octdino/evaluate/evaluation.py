"""The evaluate stage: metrics with confidence intervals, paired differences, subgroups and figures."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.config import EvaluateSettings
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import one_seed, write_table
from octdino.data.pretrained_methods import pretrained_methods
from octdino.data.schemas.csv_schemas import COMPARISON, MACRO, METRICS, SUBGROUPS, WEIGHTED
from octdino.data.schemas.evaluate_schemas import LABEL_EFFICIENCY, POWER
from octdino.errors import UserError
from octdino.evaluate.calibration_figures import plot_calibration_figures
from octdino.evaluate.classifier_runs import Key
from octdino.evaluate.comparable_runs import NOT_EVALUABLE, TestSet, read_runs
from octdino.evaluate.comparison_figures import plot_comparison_figures
from octdino.evaluate.image_quality import image_qualities
from octdino.evaluate.label_efficiency import label_efficiency_table
from octdino.evaluate.label_efficiency_figure import plot_patients_needed
from octdino.evaluate.label_figures import plot_label_figures
from octdino.evaluate.power_table import power_table
from octdino.evaluate.reference_pairs import comparison_pairs
from octdino.evaluate.resampled_scores import (
    ACCURACY,
    bootstrap_scores,
    complete_labels,
    interval_bounds,
    is_compared,
    make_resample_weights,
    metric_names,
    score_columns,
    seed_means,
)
from octdino.evaluate.subgroups import groupings, subgroup_table
from octdino.stats.bootstrap import p_value
from octdino.stats.significance import holm

log = logging.getLogger("octdino.evaluate")

AUROC = "auroc"


def evaluate(settings: EvaluateSettings, manifest: Path, classifiers: list[Path], out: Path) -> None:
    """Compare classifiers; write five tables (CSV) and the figures (SVG) to `out`.

    Intervals are over resamples of test patients; all classifiers and labels share the resamples, so a difference
    between two arms is paired. Macro and weighted are means over one fixed set of labels, the evaluable ones; in a
    resample where one of them has a single class it is the mean over the others. With several seeds, rows without a
    seed are the mean over seeds, and their intervals are over resamples of patients and of seeds.

    Args:
        manifest: the cohort's manifest.csv; splits.csv is beside it.
        classifiers: results folders (or the predictions.csv in them), any number of arms, fractions, folds and seeds.

    Raises:
        UserError: see `read_cohort` and `read_runs`.
    """
    if manifest.name != "manifest.csv":
        raise UserError(f"--manifest: {manifest}; expected the manifest.csv of a cohort, its other files beside it")
    cohort = read_cohort(manifest.with_name("scans.h5"), needs_store=False)
    test, runs = read_runs(settings, cohort, classifiers)
    resample_weights = make_resample_weights(settings, test.patients)
    complete = complete_labels(settings, test, runs)
    tables: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    leading: dict[Key, np.ndarray] = {}
    lead = ACCURACY if test.exclusive else AUROC
    place = metric_names(settings, test.exclusive).index(lead), score_columns(test.labels).index(MACRO)
    for fraction in sorted({run.key.fraction for run in runs}):  # one at a time, to save memory
        scores = bootstrap_scores(
            settings, test, [run for run in runs if run.key.fraction == fraction], resample_weights, complete
        )
        with_mean = {**scores, **seed_means(settings, scores)}
        leading |= {key: values[place[0], :, place[1]].copy() for key, values in with_mean.items()}
        tables.append((metrics_table(settings, test, with_mean), comparison_table(settings, test, with_mean)))
    metrics, comparison = (sorted_rows(pd.concat(parts)) for parts in zip(*tables, strict=True))
    parts = groupings(settings, test.rows, _quality(cohort, test))
    subgroups = subgroup_table(settings, test, runs, resample_weights, parts)
    write_table(out / "metrics.csv", metrics, METRICS)
    write_table(out / "comparison.csv", comparison, COMPARISON)
    write_table(out / "subgroups.csv", subgroups, SUBGROUPS)
    patients = {run.key.fraction: run.n_train_patients for run in runs}
    efficiency = sorted_rows(label_efficiency_table(settings, test, lead, leading, patients))
    write_table(out / "label_efficiency.csv", efficiency, LABEL_EFFICIENCY)
    power = power_table(settings, test, lead, leading, comparison_pairs(settings.reference, leading))
    write_table(out / "power.csv", sorted_rows(power), POWER)
    runs = list({run.key: run for run in reversed(runs)}.values())[::-1]  # curves are of the first repeat
    pretrained = pretrained_methods(manifest.parent.parent)
    plot_comparison_figures(settings, test, runs, metrics, comparison, pretrained, out)
    plot_label_figures(settings, test.words, metrics, comparison, pretrained, out)
    plot_patients_needed(settings, test, metrics, efficiency, patients, out / "patients_needed.svg")
    plot_calibration_figures(settings, test, runs, metrics, subgroups, resample_weights, out)
    counts = ", ".join(f"{test.tiers.count(tier)} {tier}" for tier in dict.fromkeys(test.tiers))
    log.info(
        "%d classifiers, %d test %s, labels: %s", len(runs), len(resample_weights), test.unit.many, counts or "none"
    )
    if test.unit.state == "unknown":
        log.warning("%s: %s", manifest, test.unit.warning)


def _quality(cohort: Cohort, test: TestSet) -> np.ndarray | None:
    """Return the image quality of the test scans, float64 [N]; None where there is no store."""
    if not cohort.has_store:
        log.info("%s: no such store; there are no subgroups by image quality", cohort.store)
        return None
    return image_qualities(cohort, np.flatnonzero(cohort.manifest["scan_id"].isin(test.rows["scan_id"])))


def sorted_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows sorted by classifier, the mean over seeds last; within one classifier in their order."""
    keys = ["arm", "backbone", "fraction", "seed"]
    return table.sort_values(keys, kind="stable", na_position="last", ignore_index=True)


def metrics_table(settings: EvaluateSettings, test: TestSet, scores: dict[Key, np.ndarray]) -> pd.DataFrame:
    """Return one row per classifier, label and metric; see METRICS."""
    counts = _counts(test)
    rows: list[dict[str, Any]] = []
    for key, values in scores.items():
        low, high, resamples = interval_bounds(settings, test.patients, values)
        for index, label in enumerate(score_columns(test.labels)):
            for which, metric in enumerate(metric_names(settings, test.exclusive)):
                if metric == ACCURACY and label != MACRO:
                    continue
                numbers = {"value": values[which, 0, index], "low": low[which, index], "high": high[which, index]}
                if np.isnan(numbers["value"]):
                    numbers = dict.fromkeys(numbers, np.nan)
                rows.append(
                    {**key._asdict(), "fold": test.fold, "label": label, "metric": metric, **numbers, **counts[label]}
                    | {"n_resamples": resamples[which, index]}
                )
    return pd.DataFrame(rows)


def _counts(test: TestSet) -> dict[str, dict[str, Any]]:
    """Return the numbers of patients and scans of each label, and of the means over labels."""
    own = {label: _label_counts(test, index) for index, label in enumerate(test.labels)}
    return own | dict.fromkeys((MACRO, WEIGHTED), _macro_counts(test))


def _label_counts(test: TestSet, index: int) -> dict[str, Any]:
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
    """Return one row per pair of arms, label and metric; see COMPARISON. Labels that are not evaluable have none."""
    labels, metrics, counts = score_columns(test.labels), metric_names(settings, test.exclusive), _counts(test)
    kept = np.array([is_compared(metric) for metric in metrics])
    rows: list[dict[str, Any]] = []
    for key, reference in comparison_pairs(settings.reference, scores):
        difference = scores[key] - scores[reference]
        low, high, resamples = interval_bounds(settings, test.patients, difference)
        replicates_only = difference[:, 1 : 1 + settings.resamples].swapaxes(0, 1)
        p = p_value(replicates_only, test.patients if settings.small_sample_correction else None)
        for which, index in np.argwhere(np.isfinite(difference[:, 0]) & kept[:, None]):
            rows.append(
                {
                    **key._asdict(),
                    "reference": reference.arm,
                    "fold": test.fold,
                    "label": labels[index],
                    "metric": metrics[which],
                    "difference": difference[which, 0, index],
                    "low": low[which, index],
                    "high": high[which, index],
                    "p": p[which, index],
                    "n_patients": counts[labels[index]]["n_patients"],
                    "n_scans": counts[labels[index]]["n_scans"],
                    "n_resamples": resamples[which, index],
                }
            )
    table = pd.DataFrame(rows, columns=[column.name for column in COMPARISON])
    # One family: all arms (and backbones) against the same reference in the same label, metric, fraction and seed. The
    # only seed of an arm is shown, and so counted, among the means over seeds of the others.
    family_seed = table["seed"].mask(table.index.isin(one_seed(table).index))
    keys = [table["reference"], table["label"], table["metric"], table["fraction"], family_seed]
    family = table.groupby(keys, dropna=False)["p"]
    table["p_adjusted"] = family.transform(lambda p: holm(p.to_numpy(np.float64))).astype(float)
    return table
