"""Bootstrap scores: every metric of every classifier in every resample, means over labels and seeds, intervals."""

from collections.abc import Callable
from itertools import groupby

import numpy as np

from octdino.config import EvaluateSettings
from octdino.data.schemas.csv_schemas import MACRO, WEIGHTED
from octdino.evaluate.classifier_runs import Key, Run
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.metrics import accuracy, by_patient, decision_metrics, ranking_metrics, rates
from octdino.evaluate.reliability import brier, calibration_error, prevalence, slope_and_intercept
from octdino.stats.bootstrap import (
    bca_interval,
    corrected_confidence,
    interval,
    jackknife_weights,
    resample_patients,
    resample_seeds,
)

ACCURACY = "accuracy"  # of labels that exclude each other: one predicted class per scan
RANKING = ("auroc", "average_precision")
DECISION = ("f1", "balanced_accuracy")
CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")
PATIENT = ("patient_auroc", "patient_average_precision", "patient_prevalence")
ALONE = ("prevalence", "calibration_slope", "calibration_intercept")  # neither high nor low is good: not compared


def metric_names(settings: EvaluateSettings, exclusive: bool) -> tuple[str, ...]:
    """Return the names of the metrics, in the order of the first axis of an array of scores."""
    fixed = [name for kept in ("specificity", "sensitivity") for name in rate_names(settings, kept)]
    found = (*RANKING, "prevalence", *DECISION, *fixed, *CALIBRATION)
    found += (*(f"{name}_calibrated" for name in CALIBRATION), *PATIENT)
    return (*found, ACCURACY) if exclusive else found


def rate_names(settings: EvaluateSettings, kept: str) -> tuple[str, str]:
    """Return the names of sensitivity and specificity at the threshold that reaches the operating point of `kept`.

    The threshold is chosen on validation patients; `kept` is specificity or sensitivity.
    """
    suffix = f"@{kept[:4]}{100 * settings.operating_point:g}"
    return f"sensitivity{suffix}", f"specificity{suffix}"


def score_columns(labels: list[str]) -> list[str]:
    """Return the names in the last axis of an array of scores: the labels, then the means over them."""
    return [*labels, MACRO, WEIGHTED]


def is_compared(metric: str) -> bool:
    """Return whether a difference of two arms in this metric shows which one is better."""
    return metric.removesuffix("_calibrated").removeprefix("patient_") not in ALONE


def make_resample_weights(settings: EvaluateSettings, patients: int) -> np.ndarray:
    """Return the weight of each patient in each column, float64 [P, C].

    Columns: the test set itself, the bootstrap resamples, and for BCa intervals the jackknife.
    """
    resamples = resample_patients(patients, settings.resamples, settings.seed)
    return np.concatenate([resamples, jackknife_weights(patients)], axis=1) if settings.interval == "bca" else resamples


def interval_bounds(
    settings: EvaluateSettings, patients: int, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the confidence interval of scores [metrics, C, ...] and the number of resamples with a value.

    Returns:
        Low, high and number, [metrics, ...] each.
    """
    columns = values.swapaxes(0, 1)
    replicates, left_out = columns[1 : 1 + settings.resamples], columns[1 + settings.resamples :]
    level = (
        corrected_confidence(settings.confidence, patients) if settings.small_sample_correction else settings.confidence
    )
    if settings.interval == "bca":
        low, high = bca_interval(replicates, columns[0], left_out, level)
    else:
        low, high = interval(replicates, level)
    return low, high, np.isfinite(replicates).sum(axis=0)


def bootstrap_scores(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], resample_weights: np.ndarray, complete: np.ndarray
) -> dict[Key, np.ndarray]:
    """Return every metric of every classifier in every resample, float64 [metrics, C, L + 2].

    The axes are `metric_names`, the columns of `resample_weights`, and `score_columns`.

    Macro is the mean over labels; weighted weighs a label with its positive scans (patient metrics: patients) in the
    resample, as scikit-learn's `average="weighted"`. The accuracy is over all labels at once and is stored at macro.

    Args:
        complete: bool [metrics, L], the labels that the means are over, see `complete_labels`.
    """
    weights = label_weights(test, resample_weights)
    metrics, where = metric_names(settings, test.exclusive), score_columns(test.labels)
    macro, weighted = where.index(MACRO), where.index(WEIGHTED)
    of_patients = np.array([metric in PATIENT for metric in metrics])

    def score(run: Run) -> np.ndarray:
        values = np.full((len(metrics), resample_weights.shape[1], len(where)), np.nan)
        labels = _of_labels(settings, test, run, resample_weights)
        values[:, :, : len(test.labels)] = labels
        among = np.where(complete[:, None, :], labels, np.nan)
        values[:, :, macro] = mean_of_known(among, np.ones(1))
        for part, weight in zip((~of_patients, of_patients), weights, strict=True):
            values[part, :, weighted] = mean_of_known(among[part], weight)
        if test.exclusive:
            right = run.probabilities.argmax(1) == test.truth.argmax(1)
            values[metrics.index(ACCURACY), :, macro] = accuracy(right, test.patient, resample_weights)
        return values

    return mean_of_repeats(runs, score)


def mean_of_repeats(runs: list[Run], score: Callable[[Run], np.ndarray]) -> dict[Key, np.ndarray]:
    """Return the score of each run; for the repeats of a cross-validation, which share a key, the mean per resample."""
    found: dict[Key, np.ndarray] = {}
    for key, repeats in groupby(sorted(runs, key=lambda run: run.key), lambda run: run.key):
        values = [score(run) for run in repeats]
        found[key] = sum(values[1:], start=values[0]) / len(values)
    return found


def complete_labels(settings: EvaluateSettings, test: TestSet, runs: list[Run]) -> np.ndarray:
    """Return where every classifier has a value on the test set itself, bool [metrics, L].

    A label without a threshold in one classifier is in no macro mean: the means must be over the same labels.
    """
    once = np.ones((test.patients, 1))
    values = [_of_labels(settings, test, run, once) for run in runs]
    found: np.ndarray = np.all([np.isfinite(one[:, 0]) for one in values], axis=0)
    return found


def _of_labels(settings: EvaluateSettings, test: TestSet, run: Run, resample_weights: np.ndarray) -> np.ndarray:
    """Return every metric of each label, float64 [metrics, C, L], NaN where there is none."""
    place = {name: row for row, name in enumerate(metric_names(settings, test.exclusive))}
    values = np.full((len(place), resample_weights.shape[1], len(test.labels)), np.nan)
    for index in np.flatnonzero(test.evaluable):
        for name, found in scores_of_label(settings, test, run, resample_weights, int(index)).items():
            values[place[name], :, index] = found
    return values


def scores_of_label(
    settings: EvaluateSettings, test: TestSet, run: Run, resample_weights: np.ndarray, index: int
) -> dict[str, np.ndarray]:
    """Return the metrics that one label has, by name, float64 [C] each."""
    known = ~np.isnan(test.truth[:, index])
    truth, patient, p = test.truth[known, index] == 1, test.patient[known], run.probabilities[known, index]
    found = dict(zip(RANKING, ranking_metrics(truth, p, patient, resample_weights), strict=True))
    found["prevalence"] = prevalence(truth, patient, resample_weights)
    for kind, decisions in run.decided.items():
        if np.isnan(called := decisions[known, index]).any():
            continue
        score, metrics = (decision_metrics, DECISION) if kind == "chosen" else (rates, rate_names(settings, kind))
        found |= zip(metrics, score(truth, called == 1, patient, resample_weights), strict=True)
    for suffix, probabilities in (("", p), ("_calibrated", run.calibrated[known, index])):
        if not np.isnan(probabilities).any():
            scores = _calibration(settings, truth, probabilities, patient, resample_weights)
            found |= {f"{name}{suffix}": value for name, value in scores.items()}
    positive, pooled, patients = by_patient(truth, p, patient, settings.pooling)
    if min(positive.sum(), (~positive).sum()) >= settings.min_test_patients:
        ranking = ranking_metrics(positive, pooled, patients, resample_weights)
        found |= zip(PATIENT, (*ranking, prevalence(positive, patients, resample_weights)), strict=True)
    return found


def _calibration(
    settings: EvaluateSettings, truth: np.ndarray, p: np.ndarray, patient: np.ndarray, resample_weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of CALIBRATION by name, float64 [C] each."""
    error = _centered(calibration_error(truth, p, patient, resample_weights, settings.bins), settings.resamples)
    scores = (
        brier(truth, p, patient, resample_weights),
        error,
        *slope_and_intercept(truth, p, patient, resample_weights),
    )
    return dict(zip(CALIBRATION, scores, strict=True))


def _centered(error: np.ndarray, resamples: int) -> np.ndarray:
    """Return calibration errors [C] with the resamples shifted so that their mean is the error on the test set.

    Resampling adds noise to every bin, and so to the error: without the shift, intervals would lie above the value.
    """
    replicates = slice(1, 1 + resamples)
    excess = np.nan_to_num(np.nanmean(error[replicates]) - error[0]) if len(error) > 1 else 0.0
    shifted = error.copy()
    shifted[replicates] = np.maximum(error[replicates] - excess, 0)
    return shifted


def label_weights(test: TestSet, resample_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of positive scans, and of positive patients, per resample and label: two float64 [C, L]."""
    scans = np.zeros((len(resample_weights), len(test.labels)))
    np.add.at(scans, test.patient, test.truth == 1)
    return resample_weights.T @ scans, resample_weights.T @ (scans > 0)


def mean_of_known(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean over the last axis, NaN left out; NaN where all values are."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = (np.where(known, values, 0) * weights).sum(-1) / (known * weights).sum(-1)
    return mean


def seed_means(settings: EvaluateSettings, scores: dict[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """Return the mean over seeds of each classifier that has several; every resample resamples the seeds as well.

    The resampled seeds are the same for all classifiers.
    """
    means = {}
    for key, seeds in groupby(sorted(scores), lambda key: key._replace(seed=None)):
        if len(same := list(seeds)) < 2:
            continue
        seed_weights = resample_seeds(len(same), settings.resamples, settings.seed + 1)
        columns = scores[same[0]].shape[1]
        weights = np.full((len(same), columns), 1 / len(same))  # the jackknife is over patients only
        weights[:, : seed_weights.shape[1]] = seed_weights[:, :columns]
        means[key] = np.zeros_like(scores[same[0]])
        for one, weight in zip(same, weights[:, None, :, None], strict=True):
            means[key] += np.where(weight > 0, weight * scores[one], 0)
    return means
