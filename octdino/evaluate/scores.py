"""Every metric of every classifier under every draw of patients, and their means over labels and over seeds."""

from collections.abc import Callable
from itertools import groupby

import numpy as np

from octdino.config import EvaluateSettings
from octdino.evaluate.gather import Key, Run, TestSet
from octdino.evaluate.metrics import accuracy, by_patient, decision_metrics, ranking_metrics, rates
from octdino.evaluate.reliability import brier, calibration_error, prevalence, slope_and_intercept
from octdino.resampling import bca_interval, draw_patients, draw_seeds, expanded, interval, leave_out

ACCURACY = "accuracy"  # of labels that exclude each other: one answer a scan
MACRO, WEIGHTED = "macro", "weighted"
CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")
PATIENT = ("patient_auroc", "patient_average_precision", "patient_prevalence")
ALONE = ("prevalence", "calibration_slope", "calibration_intercept")  # neither high nor low is good: not compared


def names(settings: EvaluateSettings, exclusive: bool) -> tuple[str, ...]:
    """The metrics, in order."""
    level = f"{100 * settings.operating_point:g}"
    fixed = [f"{what}@{kept}{level}" for kept in ("spec", "sens") for what in ("sensitivity", "specificity")]
    found = ("auroc", "average_precision", "prevalence", "f1", "balanced_accuracy", *fixed, *CALIBRATION)
    found += (*(f"{name}_calibrated" for name in CALIBRATION), *PATIENT)
    return (*found, ACCURACY) if exclusive else found


def is_compared(metric: str) -> bool:
    """Whether a difference of two arms in this metric says which one is better."""
    return metric.removesuffix("_calibrated").removeprefix("patient_") not in ALONE


def draws(settings: EvaluateSettings, patients: int) -> np.ndarray:
    """float64 [P, C]: the test set itself, the resamples, and where BCa wants it the jackknife."""
    times = draw_patients(patients, settings.resamples, settings.seed)
    return np.concatenate([times, leave_out(patients)], axis=1) if settings.interval == "bca" else times


def ends(settings: EvaluateSettings, patients: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low and high end and the number of resamples with a value, of [metrics, C, ...] each [metrics, ...]."""
    columns = values.swapaxes(0, 1)
    drawn, left_out = columns[1 : 1 + settings.resamples], columns[1 + settings.resamples :]
    level = expanded(settings.confidence, patients) if settings.expand else settings.confidence
    if settings.interval == "bca":
        low, high = bca_interval(drawn, columns[0], left_out, level)
    else:
        low, high = interval(drawn, level)
    return low, high, np.isfinite(drawn).sum(axis=0)


def replicates(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], times: np.ndarray, complete: np.ndarray
) -> dict[Key, np.ndarray]:
    """Every metric of every classifier: float64 [metrics, C, L + 2], columns of `times`; last macro and weighted.

    Macro is the mean over labels; weighted weighs a label with its positive scans (patient metrics: patients) in the
    resample, as scikit-learn's `average="weighted"`. The accuracy is one over all labels and stands at macro.

    Args:
        complete: bool [metrics, L], which labels the means are over, see `complete_labels`.
    """
    weights = label_weights(test, times)
    of_patients = np.array([metric in PATIENT for metric in names(settings, test.exclusive)])

    def of(run: Run) -> np.ndarray:
        values = _of_labels(settings, test, run, times)
        among = np.where(complete[:, None, :], values[:, :, :-2], np.nan)
        values[:, :, -2] = mean_of_known(among, np.ones(1))
        for part, weight in zip((~of_patients, of_patients), weights, strict=True):
            values[part, :, -1] = mean_of_known(among[part], weight)
        if test.exclusive:
            right = run.probabilities.argmax(1) == test.truth.argmax(1)
            values[-1, :, -2] = accuracy(right, test.patient, times)
        return values

    return mean_of_repeats(runs, of)


def mean_of_repeats(runs: list[Run], of: Callable[[Run], np.ndarray]) -> dict[Key, np.ndarray]:
    """`of` each run; of those with the same key, the repeats of a cross-validation, the mean draw by draw."""
    found: dict[Key, np.ndarray] = {}
    for key, repeats in groupby(sorted(runs, key=lambda run: run.key), lambda run: run.key):
        values = [of(run) for run in repeats]
        found[key] = sum(values[1:], start=values[0]) / len(values)
    return found


def complete_labels(settings: EvaluateSettings, test: TestSet, runs: list[Run]) -> np.ndarray:
    """bool [metrics, L]: where every classifier has a value on the test set itself.

    A label without a threshold somewhere is in nobody's macro: the means must be over the same labels.
    """
    once = np.ones((test.patients, 1))
    values = [_of_labels(settings, test, run, once) for run in runs]
    found: np.ndarray = np.all([np.isfinite(one[:, 0, :-2]) for one in values], axis=0)
    return found


def _of_labels(settings: EvaluateSettings, test: TestSet, run: Run, times: np.ndarray) -> np.ndarray:
    values = np.full((len(names(settings, test.exclusive)), times.shape[1], len(test.labels) + 2), np.nan)
    for index in np.flatnonzero(test.evaluable):
        known = ~np.isnan(test.truth[:, index])
        truth, patient, p = test.truth[known, index] == 1, test.patient[known], run.probabilities[known, index]
        values[:2, :, index] = ranking_metrics(truth, p, patient, times)
        values[2, :, index] = prevalence(truth, patient, times)
        of_decisions = (decision_metrics, rates, rates)
        for place, (decided, of) in enumerate(zip(run.decided.values(), of_decisions, strict=True)):
            if not np.isnan(called := decided[known, index]).any():
                values[3 + 2 * place : 5 + 2 * place, :, index] = of(truth, called == 1, patient, times)
        for first, said in ((9, p), (13, run.calibrated[known, index])):
            if not np.isnan(said).any():
                values[first, :, index] = brier(truth, said, patient, times)
                error = calibration_error(truth, said, patient, times, settings.bins)
                values[first + 1, :, index] = _centred(error, settings.resamples)
                values[first + 2 : first + 4, :, index] = slope_and_intercept(truth, said, patient, times)
        positive, pooled, who = by_patient(truth, p, patient, settings.pooling)
        if min(positive.sum(), (~positive).sum()) >= settings.min_test_patients:
            values[17:19, :, index] = ranking_metrics(positive, pooled, who, times)
            values[19, :, index] = prevalence(positive, who, times)
    return values


def _centred(error: np.ndarray, resamples: int) -> np.ndarray:
    """Calibration errors [C] whose resamples are shifted onto the test set's own.

    Resampling adds noise to every bin, and so to the error: unshifted, intervals would lie above the value.
    """
    drawn = slice(1, 1 + resamples)
    excess = np.nan_to_num(np.nanmean(error[drawn]) - error[0]) if len(error) > 1 else 0.0
    shifted = error.copy()
    shifted[drawn] = np.maximum(error[drawn] - excess, 0)
    return shifted


def label_weights(test: TestSet, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive scans, and positive patients, of each label under each draw: two float64 [C, L]."""
    scans = np.zeros((len(times), len(test.labels)))
    np.add.at(scans, test.patient, test.truth == 1)
    return times.T @ scans, times.T @ (scans > 0)


def mean_of_known(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the last axis without NaN; NaN where nothing is known."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = (np.where(known, values, 0) * weights).sum(-1) / (known * weights).sum(-1)
    return mean


def seed_means(settings: EvaluateSettings, scores: dict[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """The mean over seeds for what has several, seeds drawn anew in every resample; the draws are the same for all."""
    means = {}
    for key, seeds in groupby(sorted(scores), lambda key: key._replace(seed=None)):
        if len(same := list(seeds)) < 2:
            continue
        drawn = draw_seeds(len(same), settings.resamples, settings.seed + 1)
        columns = scores[same[0]].shape[1]
        weights = np.full((len(same), columns), 1 / len(same))  # the jackknife is over patients only
        weights[:, : drawn.shape[1]] = drawn[:, :columns]
        means[key] = np.zeros_like(scores[same[0]])
        for one, weight in zip(same, weights[:, None, :, None], strict=True):
            means[key] += np.where(weight > 0, weight * scores[one], 0)
    return means
