"""The numbers of the report that the project began with, beside ours: as reported, the same protocol, corrected."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.config.names import fraction_text
from octdino.config.report import NumberSettings, QuotedSettings
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import JACCARD
from octdino.data.schemas.metadata import ReportedMetadata, read_metadata
from octdino.report.conclusions import NOTHING, one_seed
from octdino.report.results_reader import Results
from octdino.report.tables import Cell

HEADS = ("what", "in the report", "as reported", "its protocol, run here", "corrected", "what was wrong")


def quoted_rows(quoted: list[QuotedSettings], found: Results) -> list[list[Cell]]:
    """HEADS; a dash where this run has no such number."""
    rows = []
    for one in quoted:
        value = Cell(NOTHING, sort=-math.inf) if one.value is None else Cell(f"{one.value:g} %", sort=one.value)
        rows.append(
            [
                Cell(one.item, sort=one.item),
                Cell(one.source, sort=one.source),
                value,
                number(one.repeated, found),
                number(one.corrected, found),
                Cell(one.fault or NOTHING, sort=one.fault),
            ]
        )
    return rows


def number(wanted: NumberSettings | None, found: Results) -> Cell:
    """The value in percent; in small print its interval, and of how many scans, epochs or seeds it is."""
    nothing = Cell(NOTHING, sort=-math.inf)
    if wanted is None:
        return nothing
    readers = {"metrics": _metric, "reported": _reported, "history": _history, "jaccard": _jaccard}
    return readers[wanted.table](wanted, found) or nothing


def _cell(value: float, small: str) -> Cell:
    return Cell(f"{100 * value:.1f} %", small, 100 * value)


def _interval(row: pd.Series) -> str:
    return f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _metric(wanted: NumberSettings, found: Results) -> Cell | None:
    table = found.metrics
    rows = table[
        (table["arm"] == wanted.name)
        & (table["backbone"] == wanted.backbone)
        & (table["label"] == "macro")
        & (table["metric"] == wanted.column)
        & table["fraction"].sub(wanted.fraction).abs().lt(1e-9)
        & table["value"].notna()
    ]
    if rows.empty:
        return None
    row = one_seed(rows).iloc[0]
    seeds = max(1, int(rows["seed"].notna().sum()))
    return _cell(row["value"], f"{_interval(row)}, {row['n_scans']} scans, {_count(seeds, 'seed')}")


def _reported(wanted: NumberSettings, found: Results) -> Cell | None:
    folder = found.root / "classify" / wanted.name / wanted.backbone / f"f{fraction_text(wanted.fraction)}"
    cards = [
        read_metadata(path, ReportedMetadata, "reported") for path in sorted(folder.glob("reported-*/reported.json"))
    ]
    if not cards:
        return None
    value = sum(card.best for card in cards) / len(cards)
    last = sum(card.last for card in cards) / len(cards)
    small = f"best of {cards[0].epochs} epochs (last {100 * last:.1f}), {cards[0].n_test} scans"
    return _cell(value, f"{small}, {_count(len(cards), 'seed')}")


def _history(wanted: NumberSettings, found: Results) -> Cell | None:
    curves = [
        run.history.set_index("epoch")[wanted.column].dropna()
        for run in found.pretraining
        if (run.method, run.backbone) == (wanted.name, wanted.backbone) and wanted.column in run.history
    ]
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return None
    value = sum(float(curve.max() if wanted.take == "max" else curve.iloc[-1]) for curve in curves) / len(curves)
    which = "best" if wanted.take == "max" else "last"
    return _cell(value, f"{which} of {int(curves[0].index.max())} epochs, {_count(len(curves), 'seed')}")


def _jaccard(wanted: NumberSettings, found: Results) -> Cell | None:
    paths = sorted((found.root / "explain" / wanted.name / wanted.backbone).glob("*/jaccard.csv"))
    rows = [row for path in paths for row in _protocol(path, wanted)]
    if not rows:
        return None
    first = rows[0]
    value = sum(float(row["value"]) for row in rows) / len(rows)
    return _cell(value, f"{_interval(first)}, {first['n_images']} images, {_count(len(rows), 'seed')}")


def _protocol(path: Path, wanted: NumberSettings) -> list[Any]:
    table = read_table(path, JACCARD)
    if table.empty:
        return []
    chosen = table[(table["protocol"] == wanted.column) & (table["blobs"] == wanted.blobs) & table["value"].notna()]
    return [row for _, row in chosen.head(1).iterrows()]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
