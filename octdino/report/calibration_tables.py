"""Tables of operating points, calibration before and after temperature scaling, and subgroups."""

import math
from typing import Any

import pandas as pd

from octdino.report.conclusions import NOTHING, number, pair, percent
from octdino.report.results_reader import Results
from octdino.report.tables import Cell

BEFORE_AFTER = {
    "brier": "Brier",
    "ece": "calibration error",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
}


def _score(row: Any) -> Cell:
    if row is None or pd.isna(row["value"]):
        return Cell("n/e", sort=-math.inf)
    return Cell(number(row["value"]), pair(row["low"], row["high"]), float(row["value"]))


def _table(results: Results, columns: list[tuple[str, str]], best: int) -> list[list[Cell]]:
    """Return fraction, arm, backbone if there are several, then one cell per (label, metric).

    Within a fraction the best by the first of these cells comes first; `best` 1: the highest, -1: the lowest is best.
    """
    rows = []
    for (fraction, arm, backbone), part in results.tables.scores.groupby(["fraction", "arm", "backbone"]):
        found = part.drop_duplicates(["label", "metric"]).set_index(["label", "metric"])
        cells = [_score(found.loc[column] if column in found.index else None) for column in columns]
        row = [Cell(percent(float(str(fraction))), sort=float(str(fraction))), Cell(str(arm), sort=str(arm))]
        if results.tables.several_backbones:
            row.append(Cell(NOTHING if backbone == "none" else str(backbone), sort=str(backbone)))
        rows.append((float(str(fraction)), -best * float(cells[0].sort), [*row, *cells]))
    return [row for *_, row in sorted(rows, key=lambda one: one[:2])]


def _heads(results: Results, others: list[str]) -> list[str]:
    return ["labels", "arm", *(["backbone"] if results.tables.several_backbones else []), *others]


def operating_table(results: Results) -> dict[str, Any]:
    """Return the table of weighted means, sensitivity and specificity at fixed points, and patient-level scores."""
    present = set(results.metrics["metric"])
    fixed = [name for kept in ("spec", "sens") for name in sorted(present, key=_reached_last) if f"@{kept}" in name]
    wanted = [("weighted", "auroc", "AUROC, weighted"), ("weighted", "average_precision", "AP, weighted")]
    wanted += [("macro", name, _in_words(name)) for name in fixed]
    if results.cohort.unit.patients:
        wanted += [
            ("macro", "patient_auroc", "patient-level AUROC"),
            ("macro", "patient_average_precision", "patient-level AP"),
        ]
    wanted = [(label, metric, head) for label, metric, head in wanted if metric in present]
    if not fixed:
        return {}
    macro = results.tables.macro
    floors = {}
    for name in ("prevalence", "patient_prevalence"):
        values = macro.loc[macro["metric"] == name, "value"].dropna()
        floors[name] = number(float(values.iloc[0])) if len(values) else NOTHING
    return {
        "heads": _heads(results, [head for *_, head in wanted]),
        "rows": _table(results, [(label, metric) for label, metric, _ in wanted], best=1),
        "floors": floors,
    }


def _reached_last(name: str) -> tuple[bool, str]:
    """Return a sort key that puts the rate fixed on validation patients after the other one."""
    what, _, point = name.partition("@")
    return what[:4] == point[:4], name


def _in_words(name: str) -> str:
    """Return sensitivity@spec90 as "sensitivity @ 90 % spec.", and specificity@spec90 as "specificity reached"."""
    what, _, point = name.partition("@")
    return f"{what} reached" if what[:4] == point[:4] else f"{what} @ {point[4:]} % {point[:4]}."


def calibration_table(results: Results) -> dict[str, Any]:
    """Return the calibration metrics before and after temperature scaling, means over labels."""
    names = [name for name in BEFORE_AFTER if f"{name}_calibrated" in set(results.metrics["metric"])]
    if not names:
        return {}
    columns = [("macro", found) for name in names for found in (name, f"{name}_calibrated")]
    heads = [f"{BEFORE_AFTER[name]}, {when}" for name in names for when in ("before", "after")]
    rows = _table(results, columns, best=-1)
    temperatures = _temperatures(results)
    place = len(_heads(results, []))
    for row in rows:
        key = (row[0].sort, row[1].sort, row[2].sort if place > 2 else None)
        row.insert(place, temperatures.get(key, Cell(NOTHING, sort=-math.inf)))
    return {"heads": _heads(results, ["temperature", *heads]), "rows": rows}


def _temperatures(results: Results) -> dict[tuple[Any, ...], Cell]:
    """Return temperatures by fraction, arm and backbone (None if there is only one): ranges over seeds and folds."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for _, metadata in results.classifiers:
        temperature = (metadata.get("calibration") or {}).get("temperature")
        if temperature is not None:
            backbone = str(metadata["backbone"]) if results.tables.several_backbones else None
            key = (float(metadata["fraction"]), str(metadata["arm"]), backbone)
            found.setdefault(key, []).append(float(temperature))
    cells = {}
    for key, values in found.items():
        low, high = min(values), max(values)
        cells[key] = Cell(
            f"{low:.2f}" if len(values) == 1 else f"{low:.2f} to {high:.2f}", sort=sum(values) / len(values)
        )
    return cells


def subgroup_table(results: Results) -> dict[str, Any]:
    """Return one row per group, one column per arm: the leading metric with its interval; small groups are marked."""
    table = results.subgroups
    table = table[(table["label"] == "macro") & (table["metric"] == results.tables.metric)]
    if table.empty:
        return {}
    several = len(set(table["backbone"]) - {"none"}) > 1
    arms = list(dict.fromkeys(zip(table["arm"], table["backbone"], strict=True)))
    names = [f"{arm} · {backbone}" if several and backbone != "none" else str(arm) for arm, backbone in arms]
    counted = [*(["n_patients"] if results.cohort.unit.patients else []), "n_scans", "n_labels"]
    rows = []
    groups = dict.fromkeys(zip(table["subgroup"], table["group"], strict=True))
    for place, (subgroup, group) in enumerate(groups):
        part = table[(table["subgroup"] == subgroup) & (table["group"] == group)].set_index(["arm", "backbone"])
        first = part.iloc[0]
        rows.append(
            [
                Cell(str(subgroup), sort=f"{place:03d}"),
                Cell(str(group), "small" if first["small"] else "", f"{place:03d}"),
                *(Cell(str(first[name]), sort=int(first[name])) for name in counted),
                *(_score(part.loc[arm] if arm in part.index else None) for arm in arms),
            ]
        )
    nouns = {"n_patients": "patients", "n_scans": results.cohort.words.scans, "n_labels": results.cohort.words.labels}
    heads = ["by", "group", *(nouns[name] for name in counted), *names]
    return {
        "heads": heads,
        "rows": rows,
        "words": results.tables.metric_name,
        "by": [str(name) for name in dict.fromkeys(table["subgroup"]) if name != "all"],
        "fraction": percent(float(table["fraction"].iloc[0])),
    }
