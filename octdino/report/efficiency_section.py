"""Label efficiency and power on the page: sentences per arm, and the tables behind them."""

import math
from typing import Any

import pandas as pd

from octdino.config.names import has_own_backbone
from octdino.data.csv_io import one_seed
from octdino.data.sampling_units import Unit
from octdino.report.conclusions import NOTHING, number, percent
from octdino.report.results_reader import Results
from octdino.report.tables import Cell
from octdino.stats.label_efficiency import shown_fraction


def efficiency_section(results: Results) -> dict[str, Any]:
    """Return sentences, heads and rows of label_efficiency.csv; empty where it has no row."""
    table = one_seed(results.label_efficiency)
    if table.empty:
        return {}
    is_shown = table.groupby(["arm", "backbone"])["fraction"].transform(shown_fraction) == table["fraction"]
    several = results.tables.several_backbones
    reference = str(table["reference"].iloc[0])
    curve = results.tables.leading[results.tables.leading["arm"] == reference]
    points = curve.groupby("backbone")["fraction"].nunique().min()
    read = table[is_shown].sort_values(["reference_patients", "value", "arm"], ascending=[False, False, True])
    heads = [
        "labels", "arm", *(["backbone"] if several else []), f"labeled {results.cohort.unit.many}",
        results.tables.metric_name, f"{reference} needs",
    ]  # fmt: skip
    return {
        "sentences": [_sentence(row, results, several) for _, row in read.iterrows()],
        "reference": reference,
        "two_points": int(points) == 2,
        "heads": heads,
        "rows": [_row(row, several) for _, row in table.sort_values(["fraction", "arm", "backbone"]).iterrows()],
    }


def _number(row: pd.Series, column: str, name: str) -> str:
    """Return 110, more than 210, or fewer than 21."""
    bound = "" if row[f"{name}_is"] == "equal" else f"{row[f'{name}_is']} "
    return NOTHING if math.isnan(row[column]) else f"{bound}{row[column]:.0f}"


def _interval(row: pd.Series) -> str:
    return f"[{_number(row, 'low', 'low')}, {_number(row, 'high', 'high')}]"


def _sentence(row: pd.Series, results: Results, several: bool) -> str:
    """Return "{arm} with 30 labeled patients equals {reference} with 110 [70, 190]", and what it shows."""
    where, needing = f" on {row['backbone']}" if several else "", str(row["reference"])
    if has_own_backbone(row["arm"], row["backbone"]):
        where = ""
    if several and row["reference_backbone"] != row["backbone"]:
        needing += f" on {row['reference_backbone']}"
    many, own = results.cohort.unit.many, int(row["n_train_patients"])
    needed = _number(row, "reference_patients", "reference")
    text = (
        f"{row['arm']}{where} with {own} labeled {many} ({percent(row['fraction'])}) equals {needing} with "
        f"{needed} {_interval(row)}: {results.tables.metric_name} {number(row['value'])}"
    )
    if row["high"] < own or (row["high_is"] == "fewer than" and row["high"] == own):
        return f"{text}; {needing} needs fewer {many}."
    if not (row["low"] > own or (row["low_is"] == "more than" and row["low"] == own)):
        return f"{text}; the interval does not exclude {own}, so no saving of labels is shown."
    return f"{text}."


def _row(row: pd.Series, several: bool) -> list[Cell]:
    beyond = {"more than": 0.5, "fewer than": -0.5}.get(row["reference_is"], 0.0)
    return [
        Cell(percent(row["fraction"]), sort=row["fraction"]),
        Cell(str(row["arm"]), sort=str(row["arm"])),
        *([Cell(str(row["backbone"]), sort=str(row["backbone"]))] if several else []),
        Cell(str(int(row["n_train_patients"])), sort=float(row["n_train_patients"])),
        Cell(number(row["value"]), sort=float(row["value"])),
        Cell(
            _number(row, "reference_patients", "reference"), _interval(row), float(row["reference_patients"]) + beyond
        ),
    ]


def power_section(results: Results, reference: str) -> dict[str, Any]:
    """Return sentences on the largest fraction, and the table of power.csv against the reference arm.

    Empty where it has no row.
    """
    table = results.power
    table = one_seed(table[table["reference"] == reference])
    if table.empty:
        return {}
    several = results.tables.several_backbones
    last = table[table["fraction"] == table["fraction"].max()]
    groups = [("", last)] if not several else [(f" on {name}", part) for name, part in last.groupby("backbone")]
    needed = f"test {results.cohort.unit.many} needed"
    heads = ["labels", "arm", *(["backbone"] if several else []), "standard error", "power now", needed, "after Holm"]
    return {
        "sentences": [_power_sentence(part, where, results, reference) for where, part in groups],
        "heads": heads,
        "rows": [_power_row(row, several) for _, row in table.sort_values(["fraction", "arm", "backbone"]).iterrows()],
        "difference": f"{table['difference'].iloc[0]:g}",
        "power": percent(table["power"].iloc[0]),
        "seeds": bool((table["seed_error"] > 0).any()),
    }


def _power_sentence(part: pd.DataFrame, where: str, results: Results, reference: str) -> str:
    """Return "A difference of 0.02 … would need about 340 test patients; there are 131."."""
    first, unit = part.iloc[0], results.cohort.unit
    counted = part.dropna(subset=["n_needed"]).sort_values("n_needed")
    begin = f"A difference of {first['difference']:g} in {results.tables.metric_name} to {reference}{where}"
    if counted.empty:
        return f"{begin} cannot be shown with any number of test {unit.many}: seeds differ too much; run more of them."
    least, most = counted.iloc[0], counted.iloc[-1]
    span = f"about {rounded(least['n_needed'])}"
    if len(counted) > 1 and rounded(least["n_needed"]) != rounded(most["n_needed"]):
        span += f" ({least['arm']}) to {rounded(most['n_needed'])} ({most['arm']})"
    adjusted = counted["n_needed_adjusted"]
    holm = ""
    if first["comparisons"] > 1:
        to = f"up to {rounded(adjusted.max())}" if adjusted.notna().all() else "more, or no number suffices,"
        holm = f", {to} where Holm adjusts for {int(first['comparisons'])} arms"
    return (
        f"{begin} would need {span} test {unit.many} for a power of {percent(first['power'])} at p below "
        f"{first['level']:g} of one comparison{holm}; there are {_there_are(part, unit)}."
    )


def _there_are(part: pd.DataFrame, unit: Unit) -> str:
    now = part["power_now"]
    powers = f"{100 * now.min():.0f} %" if f"{now.min():.2f}" == f"{now.max():.2f}" else (
        f"{100 * now.min():.0f} to {100 * now.max():.0f} %"
    )  # fmt: skip
    return f"{int(part['n_patients'].iloc[0])}, with a power of {powers}"


def rounded(patients: float) -> str:
    """Return a number of patients to two significant digits, rounded up: the standard error is an estimate."""
    if patients < 100:
        return f"{math.ceil(patients)}"
    step = 10 ** (math.floor(math.log10(patients)) - 1)
    return f"{math.ceil(patients / step) * step:,}"


def _power_row(row: pd.Series, several: bool) -> list[Cell]:
    def patients(value: float) -> Cell:
        return Cell("no number", sort=math.inf) if math.isnan(value) else Cell(rounded(value), sort=float(value))

    seeds = f"between seeds {row['seed_error']:.3f}" if row["seed_error"] > 0 else ""
    return [
        Cell(percent(row["fraction"]), sort=row["fraction"]),
        Cell(str(row["arm"]), sort=str(row["arm"])),
        *([Cell(str(row["backbone"]), sort=str(row["backbone"]))] if several else []),
        Cell(number(row["standard_error"]), seeds, float(row["standard_error"])),
        Cell(f"{100 * row['power_now']:.0f} %", sort=float(row["power_now"])),
        patients(row["n_needed"]),
        patients(row["n_needed_adjusted"]),
    ]
