"""Every metric of every classifier under every draw of patients, and their means over labels and over seeds."""

from collections.abc import Callable
from itertools import groupby

import numpy as np

from octdino.config import EvaluateSettings
from octdino.data.schemas.csv_schemas import MACRO, WEIGHTED
from octdino.evaluate.gather import Key, Run, TestSet
from octdino.evaluate.metrics import accuracy, by_patient, decision_metrics, ranking_metrics, rates
from octdino.evaluate.reliability import brier, calibration_error, prevalence, slope_and_intercept
from octdino.stats.bootstrap import bca_interval, draw_patients, draw_seeds, expanded, interval, leave_out

ACCURACY = "accuracy"  # of labels that exclude each other: one answer a scan
RANKING = ("auroc", "average_precision")
DECISION = ("f1", "balanced_accuracy")
CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")
PATIENT = ("patient_auroc", "patient_average_precision", "patient_prevalence")
ALONE = ("prevalence", "calibration_slope", "calibration_intercept")  # neither high nor low is good: not compared


def names(settings: EvaluateSettings, exclusive: bool) -> tuple[str, ...]:
    """The metrics, in order."""
    fixed = [name for kept in ("specificity", "sensitivity") for name in rate_names(settings, kept)]
    found = (*RANKING, "prevalence", *DECISION, *fixed, *CALIBRATION)
    found += (*(f"{name}_calibrated" for name in CALIBRATION), *PATIENT)
    return (*found, ACCURACY) if exclusive else found


def rate_names(settings: EvaluateSettings, kept: str) -> tuple[str, str]:
    """Sensitivity and specificity at the threshold that keeps `kept`, which is one of the two, on val patients."""
    at = f"@{kept[:4]}{100 * settings.operating_point:g}"
    return f"sensitivity{at}", f"specificity{at}"


def columns(labels: list[str]) -> list[str]:
    """What stands where in the last axis of an array of scores: the labels, and the means over them."""
    return [*labels, MACRO, WEIGHTED]


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
    level = expanded(settings.confidence, patients) if settings.small_sample_correction else settings.confidence
    if settings.interval == "bca":
        low, high = bca_interval(drawn, columns[0], left_out, level)
    else:
        low, high = interval(drawn, level)
    return low, high, np.isfinite(drawn).sum(axis=0)


def replicates(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], times: np.ndarray, complete: np.ndarray
) -> dict[Key, np.ndarray]:
    """Every metric of every classifier: float64 [metrics, C, L + 2] by `names`, columns of `times`, and `columns`.

    Macro is the mean over labels; weighted weighs a label with its positive scans (patient metrics: patients) in the
    resample, as scikit-learn's `average="weighted"`. The accuracy is one over all labels and stands at macro.

    Args:
        complete: bool [metrics, L], which labels the means are over, see `complete_labels`.
    """
    weights = label_weights(test, times)
    metrics, where = names(settings, test.exclusive), columns(test.labels)
    macro, weighted = where.index(MACRO), where.index(WEIGHTED)
    of_patients = np.array([metric in PATIENT for metric in metrics])

    def of(run: Run) -> np.ndarray:
        values = np.full((len(metrics), times.shape[1], len(where)), np.nan)
        labels = _of_labels(settings, test, run, times)
        values[:, :, : len(test.labels)] = labels
        among = np.where(complete[:, None, :], labels, np.nan)
        values[:, :, macro] = mean_of_known(among, np.ones(1))
        for part, weight in zip((~of_patients, of_patients), weights, strict=True):
            values[part, :, weighted] = mean_of_known(among[part], weight)
        if test.exclusive:
            right = run.probabilities.argmax(1) == test.truth.argmax(1)
            values[metrics.index(ACCURACY), :, macro] = accuracy(right, test.patient, times)
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
    found: np.ndarray = np.all([np.isfinite(one[:, 0]) for one in values], axis=0)
    return found


def _of_labels(settings: EvaluateSettings, test: TestSet, run: Run, times: np.ndarray) -> np.ndarray:
    """Every metric of each label: float64 [metrics, C, L], NaN where there is none."""
    place = {name: row for row, name in enumerate(names(settings, test.exclusive))}
    values = np.full((len(place), times.shape[1], len(test.labels)), np.nan)
    for index in np.flatnonzero(test.evaluable):
        for name, found in _of_label(settings, test, run, times, int(index)).items():
            values[place[name], :, index] = found
    return values


def _of_label(
    settings: EvaluateSettings, test: TestSet, run: Run, times: np.ndarray, index: int
) -> dict[str, np.ndarray]:
    """The metrics that one label has, by name: float64 [C] each."""
    known = ~np.isnan(test.truth[:, index])
    truth, patient, p = test.truth[known, index] == 1, test.patient[known], run.probabilities[known, index]
    found = dict(zip(RANKING, ranking_metrics(truth, p, patient, times), strict=True))
    found["prevalence"] = prevalence(truth, patient, times)
    for kind, decisions in run.decided.items():
        if np.isnan(called := decisions[known, index]).any():
            continue
        of, metrics = (decision_metrics, DECISION) if kind == "chosen" else (rates, rate_names(settings, kind))
        found |= zip(metrics, of(truth, called == 1, patient, times), strict=True)
    for suffix, said in (("", p), ("_calibrated", run.calibrated[known, index])):
        if not np.isnan(said).any():
            scores = _calibration(settings, truth, said, patient, times)
            found |= {f"{name}{suffix}": value for name, value in scores.items()}
    positive, pooled, who = by_patient(truth, p, patient, settings.pooling)
    if min(positive.sum(), (~positive).sum()) >= settings.min_test_patients:
        ranking = ranking_metrics(positive, pooled, who, times)
        found |= zip(PATIENT, (*ranking, prevalence(positive, who, times)), strict=True)
    return found


def _calibration(
    settings: EvaluateSettings, truth: np.ndarray, p: np.ndarray, patient: np.ndarray, times: np.ndarray
) -> dict[str, np.ndarray]:
    """CALIBRATION by name: float64 [C] each."""
    error = _centred(calibration_error(truth, p, patient, times, settings.bins), settings.resamples)
    scores = (brier(truth, p, patient, times), error, *slope_and_intercept(truth, p, patient, times))
    return dict(zip(CALIBRATION, scores, strict=True))


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
