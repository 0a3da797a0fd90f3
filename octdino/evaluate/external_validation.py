"""External validation: internal and external performance of the same classifiers, and the drop between them."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino import made_by
from octdino.config import EvaluateSettings
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import EXTERNAL, MACRO
from octdino.data.schemas.external_metadata import ExternalMetadata
from octdino.data.schemas.external_schemas import ALL_LABELS
from octdino.data.schemas.metadata import write_metadata
from octdino.errors import UserError
from octdino.evaluate.classifier_runs import Key, Run
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.external_figure import plot_external
from octdino.evaluate.external_runs import CohortPair, read_classifiers, read_cohort_pair
from octdino.evaluate.metrics import rates
from octdino.evaluate.resampled_scores import (
    interval_bounds,
    make_resample_weights,
    mean_of_known,
    mean_of_repeats,
    metric_names,
    scores_of_label,
    seed_means,
)
from octdino.stats.bootstrap import corrected_confidence, interval, resampled_means

log = logging.getLogger("octdino.evaluate")

OUT_OF_DISTRIBUTION = "out_of_distribution"
RATES = ("sensitivity", "specificity")  # at the classifier's own threshold
OTHER_PATIENTS = 2  # added to the seed; + 1 resamples seeds
Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]  # value, low, high


def external_validation(
    settings: EvaluateSettings, manifest: Path, classifiers: Sequence[Path], externals: Sequence[Path], out: Path
) -> None:
    """Write external.csv, external.json and external.svg to `out`.

    Internal test patients and external patients are resampled by themselves, so the interval of a drop is that of two
    independent bootstraps; seeds, of which both cohorts have the same, are resampled together.

    Args:
        manifest: the internal manifest.csv, splits.csv beside it.
        classifiers: folders of trained classifiers of all arms, fractions, folds and seeds.
        externals: results/{cohort}/external/{name} of each external cohort.

    Raises:
        UserError: see `read_classifiers` and `read_cohort_pair`.
    """
    if not classifiers or not externals:
        raise UserError("nothing to compare: name the folders of at least one classifier and one external cohort")
    internal = read_classifiers(settings, manifest, classifiers)
    tables, cohorts = [], {}
    for folder in externals:
        pair = read_cohort_pair(settings, internal, folder)
        tables.append(pd.DataFrame(list(external_rows(settings, pair))))
        cohorts[pair.name] = _cohort_metadata(pair)
        log.info(
            "%s: %d scans of %d %s; tested: %s; left out: %s", pair.name, len(pair.external.truth),
            pair.external.patients, pair.external.unit.many, _mapped_labels(pair),
            ", ".join(pair.labels.left_out) or "none",
        )  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    write_table(out / "external.csv", table, EXTERNAL)
    values = {"cohorts": cohorts, "octdino": made_by("evaluate")}
    write_metadata(out / "external.json", ExternalMetadata.parse(values, f"{out}/external.json"))
    plot_external(table, out / "external.svg")


def _mapped_labels(pair: CohortPair) -> str:
    """Return the tested labels with what they stand for: "AMD (CNV + DRUSEN), DME (DME)"."""
    return ", ".join(f"{label} ({' + '.join(names)})" for label, names in pair.labels.names.items())


def _cohort_metadata(pair: CohortPair) -> dict[str, Any]:
    """Return the cohort's entry in external.json."""
    good = pair.internal.evaluable & pair.external.evaluable
    return {
        "labels": pair.labels.names,
        "exclusive": pair.exclusive,
        "left_out": pair.labels.left_out,
        "unused": pair.labels.unused,
        "not_evaluable": [label for label, fine in zip(pair.labels.labels, good, strict=True) if not fine],
        "folds": max(map(len, pair.flagged.values())),
        "n_scans": len(pair.cohort),
        "n_labeled": len(pair.external.truth),
        "n_patients": pair.external.patients,
        "patients": pair.cohort.unit.state,
    }


def external_metrics(settings: EvaluateSettings) -> tuple[str, ...]:
    """Return the names of the metrics of each label, in the order of the first axis of an array of scores."""
    return (*metric_names(settings, exclusive=False), *RATES)


def external_rows(settings: EvaluateSettings, pair: CohortPair) -> Iterator[dict[str, Any]]:
    """Yield the rows of external.csv of one cohort, arms in the order of the classifiers that were named."""
    other = settings.model_copy(update={"seed": settings.seed + OTHER_PATIENTS})
    sides = [
        label_scores(own, test, runs, make_resample_weights(own, test.patients))
        for own, test, runs in (
            (settings, pair.internal, pair.internal_runs), (other, pair.external, pair.external_runs)
        )
    ]  # fmt: skip
    complete = np.all([np.isfinite(values[:, 0]) for scores in sides for values in scores.values()], axis=0)
    sides = [with_macro(scores, complete) for scores in sides]
    internal, external = ({**scores, **seed_means(settings, scores)} for scores in sides)
    for key in _in_order(internal, pair):
        numbers = _numbers(settings, internal[key], external[key], pair.internal.patients, pair.external.patients)
        for place, label in enumerate([*pair.labels.labels, MACRO]):
            names = " + ".join(pair.labels.names.get(label, []))
            first = {"cohort": pair.name, **key._asdict(), "label": label, "internal_labels": names}
            for which, metric in enumerate(external_metrics(settings)):
                cells = {name: values[which, place] for name, values in numbers.items()}
                over = complete[which] if label == MACRO else np.arange(len(pair.labels.labels)) == place
                yield first | {"metric": metric, **cells, **_counts(pair, over, of_mean=label == MACRO)}
    yield from _distribution_rows(settings, other, pair)


def _in_order(keys: Iterable[Key], pair: CohortPair) -> list[Key]:
    """Return the classifiers by arm, as they were named, backbone, fraction and seed; the mean over seeds is last."""
    arms = list(dict.fromkeys(run.key.arm for run in pair.external_runs))
    return sorted(
        keys, key=lambda key: (arms.index(key.arm), key.backbone, key.fraction, key.seed is None, key.seed or 0)
    )  # fmt: skip


def label_scores(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], resample_weights: np.ndarray
) -> dict[Key, np.ndarray]:
    """Return every metric of every classifier in every resample, float64 [metrics, C, L]; runs of one key averaged.

    The first axis is `external_metrics`; NaN where a label is not evaluable, or has no such metric.

    Args:
        resample_weights: float64 [P, C], see `make_resample_weights`.
    """
    place = {name: row for row, name in enumerate(external_metrics(settings))}

    def score(run: Run) -> np.ndarray:
        values = np.full((len(place), resample_weights.shape[1], len(test.labels)), np.nan)
        for index in map(int, np.flatnonzero(test.evaluable)):
            found = scores_of_label(settings, test, run, resample_weights, index)
            known = ~np.isnan(test.truth[:, index])
            if not np.isnan(called := run.decided["chosen"][known, index]).any():
                truth, patient = test.truth[known, index] == 1, test.patient[known]
                found |= zip(RATES, rates(truth, called == 1, patient, resample_weights), strict=True)
            for name, value in found.items():
                values[place[name], :, index] = value
        return values

    return mean_of_repeats(runs, score)


def with_macro(scores: dict[Key, np.ndarray], complete: np.ndarray) -> dict[Key, np.ndarray]:
    """Return scores [metrics, C, L + 1] with the mean over the labels that are `complete`, bool [metrics, L]."""
    found = {}
    for key, values in scores.items():
        mean = mean_of_known(np.where(complete[:, None, :], values, np.nan), np.ones(1))
        found[key] = np.concatenate([values, mean[:, :, None]], axis=2)
    return found


def _numbers(
    settings: EvaluateSettings, internal: np.ndarray, external: np.ndarray, n_internal: int, n_external: int
) -> dict[str, np.ndarray]:
    """Return values and intervals of scores [metrics, C, L] on both sides, and of their difference: [metrics, L].

    Args:
        n_internal, n_external: numbers of patients, by which intervals are corrected.
    """
    found: dict[str, np.ndarray] = {}
    bounds: dict[str, Bounds] = {}
    for name, values, patients in (("internal", internal, n_internal), ("external", external, n_external)):
        low, high, _ = interval_bounds(settings, patients, values)
        bounds[name] = values[:, 0], low, high
    count = 1 + settings.resamples
    difference = internal[:, :count] - external[:, :count]
    fewest = min(n_internal, n_external)
    bounds["drop"] = (difference[:, 0], *_drop_interval(settings, difference[:, 1:].swapaxes(0, 1), fewest))
    for name, (value, low, high) in bounds.items():
        missing = np.isnan(value)
        found |= {name: value, f"{name}_low": np.where(missing, np.nan, low)}
        found[f"{name}_high"] = np.where(missing, np.nan, high)
    return found


def _drop_interval(settings: EvaluateSettings, replicates: np.ndarray, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of a drop; corrected for the cohort with fewer patients."""
    level = settings.confidence
    return interval(replicates, corrected_confidence(level, patients) if settings.small_sample_correction else level)


def _distribution_rows(
    settings: EvaluateSettings, other: EvaluateSettings, pair: CohortPair
) -> Iterator[dict[str, Any]]:
    """Yield the share of scans out of distribution, of all external scans and of the internal test scans."""
    patients = int(pair.patient.max()) + 1
    weights = make_resample_weights(other, patients)
    external, internal = {}, {}
    for key, folds in pair.flagged.items():
        shares = np.stack(folds, axis=1).astype(np.float64)  # [S, folds]
        external[key] = resampled_means(shares, pair.patient, weights).mean(1)[None, :, None]
        known = [1 - share for share in pair.accepted[key] if share is not None]
        internal[key] = float(np.mean(known)) if known else np.nan
    shares_of = {**external, **seed_means(settings, external)}
    for key in _in_order(shares_of, pair):
        values = shares_of[key]
        few = patients < settings.min_test_patients  # then no interval: it would have no meaning
        low, high, _ = interval_bounds(settings, patients, np.full_like(values, np.nan) if few else values)
        same = [value for one, value in internal.items() if key in (one, one._replace(seed=None))]
        numbers = {"internal": float(np.mean(same)), "external": values[0, 0, 0]}
        yield {
            "cohort": pair.name, **key._asdict(), "label": ALL_LABELS, "internal_labels": "",
            "metric": OUT_OF_DISTRIBUTION, **numbers, "external_low": low[0, 0], "external_high": high[0, 0],
            "drop": numbers["internal"] - numbers["external"], "n_external_patients": patients,
            "n_external_scans": len(pair.patient),
        }  # fmt: skip


def _counts(pair: CohortPair, over: np.ndarray, of_mean: bool) -> dict[str, int | None]:
    """Return the numbers of patients, scans and positive patients on both sides.

    Args:
        over: bool [L], the label, or those that a mean is over; a scan counts if any of them is known.
        of_mean: a mean over labels has no number of positive patients.
    """
    counts: dict[str, int | None] = {}
    for side, test in (("internal", pair.internal), ("external", pair.external)):
        truth = test.truth[:, over]
        known = (~np.isnan(truth)).any(1)
        counts[f"n_{side}_patients"] = len(set(test.patient[known]))
        counts[f"n_{side}_scans"] = int(known.sum())
        counts[f"n_{side}_positive"] = None if of_mean else len(set(test.patient[(truth == 1).any(1)]))
    return counts
