"""Tables beside the comparison: fixed operating points and patients, calibration before and after, subgroups."""

import math
from typing import Any

import pandas as pd

from octdino.data.csv_io import leading_metric
from octdino.report.conclusions import NOTHING, number, one_seed, pair, percent
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
    """Fraction, arm, backbone if there are several, then one cell a (label, metric).

    Within a fraction the best comes first by the first of these cells; `best` 1: the highest, -1: the lowest is.
    """
    metrics = one_seed(results.metrics)
    several = len(set(metrics["backbone"]) - {"none"}) > 1
    rows = []
    for (fraction, arm, backbone), part in metrics.groupby(["fraction", "arm", "backbone"]):
        found = part.drop_duplicates(["label", "metric"]).set_index(["label", "metric"])
        cells = [_score(found.loc[column] if column in found.index else None) for column in columns]
        row = [Cell(percent(float(str(fraction))), sort=float(str(fraction))), Cell(str(arm), sort=str(arm))]
        if several:
            row.append(Cell(NOTHING if backbone == "none" else str(backbone), sort=str(backbone)))
        rows.append((float(str(fraction)), -best * float(cells[0].sort), [*row, *cells]))
    return [row for *_, row in sorted(rows, key=lambda one: one[:2])]


def _heads(results: Results, others: list[str]) -> list[str]:
    several = len(set(results.metrics["backbone"]) - {"none"}) > 1
    return ["labels", "arm", *(["backbone"] if several else []), *others]


def operating_table(results: Results) -> dict[str, Any]:
    """Weighted AUROC, sensitivity and specificity at fixed points and what they cost, and a patient's scans as one."""
    there = set(results.metrics["metric"])
    fixed = [name for side in ("spec", "sens") for name in sorted(there, key=_reached_last) if f"@{side}" in name]
    wanted = [("weighted", "auroc", "AUROC, weighted"), ("weighted", "average_precision", "AP, weighted")]
    wanted += [("macro", name, _in_words(name)) for name in fixed]
    if results.unit.patients:
        wanted += [
            ("macro", "patient_auroc", "AUROC of patients"),
            ("macro", "patient_average_precision", "AP of patients"),
        ]
    wanted = [(label, metric, head) for label, metric, head in wanted if metric in there]
    if not fixed:
        return {}
    macro = results.metrics[results.metrics["label"] == "macro"]
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
    """What was held on validation patients comes after what it costs."""
    what, _, at = name.partition("@")
    return what[:4] == at[:4], name


def _in_words(name: str) -> str:
    """sensitivity@spec90: sensitivity @ 90 % spec.; specificity@spec90: specificity reached."""
    what, _, at = name.partition("@")
    return f"{what} reached" if what[:4] == at[:4] else f"{what} @ {at[4:]} % {at[:4]}."


def calibration_table(results: Results) -> dict[str, Any]:
    """Brier score, calibration error, slope and intercept as predicted and at the temperature; means over labels."""
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
    """Of the classifiers by fraction, arm and backbone (None where there is only one); a range over seeds and folds."""
    several = len(set(results.metrics["backbone"]) - {"none"}) > 1
    found: dict[tuple[Any, ...], list[float]] = {}
    for _, card in results.classifiers:
        temperature = (card.get("calibration") or {}).get("temperature")
        if temperature is not None:
            key = (float(card["fraction"]), str(card["arm"]), str(card["backbone"]) if several else None)
            found.setdefault(key, []).append(float(temperature))
    cells = {}
    for key, values in found.items():
        low, high = min(values), max(values)
        cells[key] = Cell(
            f"{low:.2f}" if len(values) == 1 else f"{low:.2f} to {high:.2f}", sort=sum(values) / len(values)
        )
    return cells


def subgroup_table(results: Results) -> dict[str, Any]:
    """A row a group, a column an arm: the leading metric over labels, with its interval; small groups are marked."""
    metric, words = leading_metric(results.metrics)
    table = results.subgroups
    table = table[(table["label"] == "macro") & (table["metric"] == metric)]
    if table.empty:
        return {}
    several = len(set(table["backbone"]) - {"none"}) > 1
    arms = list(dict.fromkeys(zip(table["arm"], table["backbone"], strict=True)))
    names = [f"{arm} · {backbone}" if several and backbone != "none" else str(arm) for arm, backbone in arms]
    counted = [*(["n_patients"] if results.unit.patients else []), "n_scans", "n_labels"]
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
    heads = ["by", "group", *(name.removeprefix("n_") for name in counted), *names]
    return {"heads": heads, "rows": rows, "words": words, "fraction": percent(float(table["fraction"].iloc[0]))}
