"""Subgroup analysis: the leading metric by trial, eye side, bands of CST and BCVA, slice position and image quality."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from octdino.config import EvaluateSettings
from octdino.data.schemas.csv_schemas import MACRO, SUBGROUPS
from octdino.evaluate.classifier_runs import Key, Run
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.metrics import accuracy, ranking_metrics
from octdino.evaluate.resampled_scores import ACCURACY, interval_bounds, mean_of_known, mean_of_repeats, seed_means

AUROC = "auroc"
MOST = 8  # values of a name by which scans are grouped; with more, each is too small
THIRDS = ("low third", "middle third", "high third")
PLACES = ("centre", "between", "edge")


@dataclass(frozen=True)
class Grouping:
    """One way to divide the test scans into groups.

    Attributes:
        name: trial, eye side, CST, BCVA, position or quality; `all` is no division.
        groups: their names, in order.
        member: int [N], the group of each scan; -1 unknown.
    """

    name: str
    groups: list[str]
    member: np.ndarray


def groupings(settings: EvaluateSettings, rows: pd.DataFrame, quality: np.ndarray | None) -> list[Grouping]:
    """Return the groupings that the cohort allows, with at least two groups each, after `all`.

    Args:
        rows: of the manifest, the N test scans.
        quality: float [N], see `octdino.evaluate.image_quality`; None where there is no store.
    """
    cst, bcva = (rows[name].astype("Float64").to_numpy(np.float64, na_value=np.nan) for name in ("cst", "bcva"))
    found = [
        Grouping("all", ["all"], np.zeros(len(rows), dtype=int)),
        by_name("trial", rows["trial"]),
        by_name("eye side", rows["laterality"]),
        by_band("CST", cst, settings.cst_bands, "µm"),
        by_band("BCVA", bcva, settings.bcva_bands, "letters"),
        Grouping("position", list(PLACES), position(rows)),
    ]
    if quality is not None:
        cuts = np.quantile(quality, [1 / 3, 2 / 3])
        found.append(Grouping("quality", list(THIRDS), np.searchsorted(cuts, quality)))
    return [one for one in map(_without_empty, found) if one.name == "all" or 2 <= len(one.groups) <= MOST]


def by_name(name: str, values: pd.Series) -> Grouping:
    """Return a grouping by text; empty is unknown."""
    codes, groups = pd.factorize(values.where(values.fillna("") != ""), sort=True)
    return Grouping(name, [str(group) for group in groups], codes)


def by_band(name: str, values: np.ndarray, edges: list[float], unit: str) -> Grouping:
    """Return a grouping by bands between ascending edges; an edge belongs to the band above it. NaN is unknown."""
    if not edges:
        return Grouping(name, [], np.full(len(values), -1))
    between = [f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)]
    groups = [f"below {edges[0]:g} {unit}", *between, f"{edges[-1]:g} {unit} or more"]
    return Grouping(name, groups, np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right")))


def position(rows: pd.DataFrame) -> np.ndarray:
    """Return the third of the distance from the middle slice to the first or last slice, int [N]; -1 unknown.

    The number of slices of a volume is that of most volumes here: the last ones may be missing, or unlabeled.
    """
    slices = rows["slice"].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    last = pd.Series(slices).groupby([rows["eye"].fillna("").to_numpy(), rows["visit"].fillna("").to_numpy()]).max()
    if last.dropna().empty or (size := float(last.mode().iloc[0])) < 3:
        return np.full(len(rows), -1)
    away = np.abs(2 * (slices - 1) / (size - 1) - 1)
    return np.where(np.isnan(away), -1, np.minimum(np.floor(3 * np.nan_to_num(away)), 2)).astype(int)


def _without_empty(one: Grouping) -> Grouping:
    kept = [index for index in range(len(one.groups)) if (one.member == index).any()]
    place = {old: new for new, old in enumerate(kept)}
    member = np.array([place.get(int(index), -1) for index in one.member], dtype=int)
    return Grouping(one.name, [one.groups[index] for index in kept], member)


def subgroup_table(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], resample_weights: np.ndarray, parts: list[Grouping]
) -> pd.DataFrame:
    """Return one row per classifier at the largest fraction, group and label; see SUBGROUPS. Seeds are averaged.

    A label counts in a group that has enough positive and enough negative patients. Macro is over the labels that
    count in every group of a grouping but the small ones, so that the groups of a grouping can be compared.

    Args:
        resample_weights: float64 [P, C], see `make_resample_weights`.
    """
    last = max(run.key.fraction for run in runs)
    chosen = [run for run in runs if run.key.fraction == last]
    rows: list[dict[str, Any]] = []
    for part in parts:
        counted = [_counts(settings, test, part.member == index) for index in range(len(part.groups))]
        large = [one["evaluable"] for one in counted if not one["numbers"]["small"]]
        common = np.logical_and.reduce(large or [np.zeros(len(test.labels), dtype=bool)])
        for index, (group, one) in enumerate(zip(part.groups, counted, strict=True)):
            inside, some = part.member == index, one["evaluable"]
            scores = mean_of_repeats(chosen, partial(_scores, test, resample_weights, inside, some, common))
            for key, values in _one_seed(settings, scores).items():
                where = {**key._asdict(), "fold": test.fold, "subgroup": part.name, "group": group}
                rows += _rows(settings, test, where, values, one, int(common.sum()))
    table = pd.DataFrame(rows, columns=[column.name for column in SUBGROUPS])
    return table.sort_values(["arm", "backbone"], kind="stable", ignore_index=True)


def _counts(settings: EvaluateSettings, test: TestSet, inside: np.ndarray) -> dict[str, Any]:
    """Return which labels are evaluable in one group, bool [L], and the numbers of patients and scans of each."""
    truth, patient = test.truth[inside], test.patient[inside]
    labels = []
    for column in truth.T:
        per_class = [len(set(patient[column == value])) for value in (0, 1)]
        known = ~np.isnan(column)
        numbers = {"n_patients": len(set(patient[known])), "n_scans": int(known.sum())}
        numbers |= {"n_positive": int((column == 1).sum()), "n_positive_patients": per_class[1]}
        labels.append((numbers, min(per_class) >= settings.min_test_patients))
    patients = len(set(patient))
    return {
        "labels": [numbers for numbers, _ in labels],
        "numbers": {
            "n_patients": patients,
            "n_scans": int(inside.sum()),
            "small": int(patients < settings.small_group),
        },
        "evaluable": np.array([enough for _, enough in labels], dtype=bool) & test.evaluable,
    }


def _scores(
    test: TestSet, resample_weights: np.ndarray, inside: np.ndarray, evaluable: np.ndarray, common: np.ndarray, run: Run
) -> np.ndarray:
    """Return AUROC of each label and their mean, and the accuracy of exclusive labels, float64 [metrics, C, L + 1].

    The first axis is `_metrics`, the last the labels, then the mean or the accuracy.
    """
    metrics, macro = _metrics(test), len(test.labels)
    values = np.full((len(metrics), resample_weights.shape[1], macro + 1), np.nan)
    auroc = values[metrics.index(AUROC)]
    for index in np.flatnonzero(evaluable):
        known = inside & ~np.isnan(test.truth[:, index])
        truth = test.truth[known, index] == 1
        score = run.probabilities[known, index]
        auroc[:, index] = ranking_metrics(truth, score, test.patient[known], resample_weights)[0]
    if common.any() and not (common & ~evaluable).any():
        auroc[:, macro] = mean_of_known(auroc[:, :macro][:, common], np.ones(1))
    if test.exclusive:
        right = run.probabilities[inside].argmax(1) == test.truth[inside].argmax(1)
        values[metrics.index(ACCURACY), :, macro] = accuracy(right, test.patient[inside], resample_weights)
    return values


def _metrics(test: TestSet) -> tuple[str, ...]:
    return (AUROC, ACCURACY) if test.exclusive else (AUROC,)


def _one_seed(settings: EvaluateSettings, scores: dict[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """Return the mean over seeds where there are several, else the only seed."""
    means = seed_means(settings, scores)
    alone = {key: values for key, values in scores.items() if key._replace(seed=None) not in means}
    return {**alone, **means}


def _rows(
    settings: EvaluateSettings,
    test: TestSet,
    where: dict[str, Any],
    values: np.ndarray,
    one: dict[str, Any],
    common: int,
) -> list[dict[str, Any]]:
    """Return the rows of one classifier and group: macro first, then all labels with their counts."""
    low, high, resamples = interval_bounds(settings, one["numbers"]["n_patients"], values)
    rows = []
    for index in (len(test.labels), *range(len(test.labels))):
        macro = index == len(test.labels)
        numbers = one["numbers"] | ({} if macro else one["labels"][index])
        for which, metric in enumerate(_metrics(test)):
            if metric == ACCURACY and not macro:
                continue
            found = {"value": values[which, 0, index], "low": low[which, index], "high": high[which, index]}
            if np.isnan(found["value"]):
                found = dict.fromkeys(found, np.nan)
            label = MACRO if macro else test.labels[index]
            over = {"n_labels": common if macro else 1, "n_resamples": resamples[which, index]}
            rows.append({**where, "label": label, "metric": metric, **found, **numbers, **over})
    return rows
