"""Table of the numbers quoted from the report beside ours: as reported, the report's protocol run here, corrected."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from octdino.config.names import fraction_text
from octdino.data.atomic_files import replacing
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import JACCARD
from octdino.data.schemas.metadata import Count, Metadata, Probability, read_metadata
from octdino.report.results_reader import Results, read_results
from replication.settings import NumberSettings, QuotedSettings

COLUMNS = (
    "item", "source", "reported", "repeated", "repeated_detail", "corrected", "corrected_detail", "fault",
)  # fmt: skip
HEADS = ("what", "in the report", "as reported", "its protocol, run here", "corrected", "what was wrong")
DASH = "\N{EN DASH}"
NOTE = (
    "Percent. In brackets: interval over scans, or of which epochs; number of scans and seeds. A dash: not run "
    "here, or nothing to repeat."
)


class ProtocolMetadata(Metadata):
    """protocol.json."""

    best: Probability
    last: Probability
    epochs: Count
    n_test: Count


class Number(NamedTuple):
    """A number of ours in percent, and what it is of: interval, epochs, scans, seeds."""

    value: float
    detail: str


def write_quoted_numbers(quoted: list[QuotedSettings], results: Path, out: Path) -> None:
    """Write replication.csv (values in percent) and replication.md, the same table to read, to `out`.

    Args:
        quoted: the numbers of the report, and where ours are read.
        results: results/{cohort}.

    Raises:
        UserError: a table or metadata file cannot be read.
    """
    table = quoted_table(quoted, read_results(results))
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "replication.csv") as temporary:
        table.to_csv(temporary, index=False)
    with replacing(out / "replication.md") as temporary:
        temporary.write_text(markdown(table), encoding="utf-8")


def quoted_table(quoted: list[QuotedSettings], found: Results) -> pd.DataFrame:
    """Return COLUMNS, one row per quoted number; numbers are in percent, None where this run has none."""
    rows = []
    for one in quoted:
        repeated, corrected = number(one.repeated, found), number(one.corrected, found)
        rows.append(
            {
                "item": one.item, "source": one.source, "reported": one.value, "fault": one.fault,
                "repeated": repeated and repeated.value, "repeated_detail": repeated.detail if repeated else "",
                "corrected": corrected and corrected.value, "corrected_detail": corrected.detail if corrected else "",
            }
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("reported", "repeated", "corrected"), "float64"))


def markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown."""
    lines = ["# Numbers of the report beside ours", "", NOTE, "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for row in table.to_dict("records"):
        reported = DASH if math.isnan(row["reported"]) else f"{row['reported']:g}"
        ours = [
            DASH if math.isnan(row[name]) else f"{row[name]:.1f} ({row[f'{name}_detail']})"
            for name in ("repeated", "corrected")
        ]
        cells = [row["item"], row["source"], reported, *ours, row["fault"] or DASH]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def number(wanted: NumberSettings | None, found: Results) -> Number | None:
    """Return the number of a results table that is asked for; None where nothing is asked for or it was not run."""
    readers = {"metrics": _metric, "protocol": _protocol, "history": _history, "jaccard": _jaccard}
    return readers[wanted.table](wanted, found) if wanted else None


def _number(value: float, detail: str) -> Number:
    return Number(100 * value, detail)


def _interval(row: pd.Series) -> str:
    return f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _metric(wanted: NumberSettings, found: Results) -> Number | None:
    table = found.tables.macro
    rows = table[
        (table["arm"] == wanted.name)
        & (table["backbone"] == wanted.backbone)
        & (table["metric"] == wanted.column)
        & table["fraction"].sub(wanted.fraction).abs().lt(1e-9)
        & table["value"].notna()
    ]
    if rows.empty:
        return None
    row = rows.iloc[0]
    seeds = max(1, int(rows["seed"].notna().sum()))
    return _number(row["value"], f"{_interval(row)}, {row['n_scans']} scans, {_count(seeds, 'seed')}")


def _protocol(wanted: NumberSettings, found: Results) -> Number | None:
    folder = found.root / "replication" / wanted.name / wanted.backbone / f"f{fraction_text(wanted.fraction)}"
    runs = [read_metadata(path, ProtocolMetadata, "protocol") for path in sorted(folder.glob("*/protocol.json"))]
    if not runs:
        return None
    value = sum(run.best for run in runs) / len(runs)
    last = sum(run.last for run in runs) / len(runs)
    detail = f"best of {runs[0].epochs} epochs (last {100 * last:.1f}), {runs[0].n_test} scans"
    return _number(value, f"{detail}, {_count(len(runs), 'seed')}")


def _history(wanted: NumberSettings, found: Results) -> Number | None:
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
    return _number(value, f"{which} of {int(curves[0].index.max())} epochs, {_count(len(curves), 'seed')}")


def _jaccard(wanted: NumberSettings, found: Results) -> Number | None:
    paths = sorted((found.root / "explain" / wanted.name / wanted.backbone).glob("*/jaccard.csv"))
    rows = [row for path in paths for row in _jaccard_row(path, wanted)]
    if not rows:
        return None
    first = rows[0]
    value = sum(float(row["value"]) for row in rows) / len(rows)
    return _number(value, f"{_interval(first)}, {first['n_images']} images, {_count(len(rows), 'seed')}")


def _jaccard_row(path: Path, wanted: NumberSettings) -> list[Any]:
    table = read_table(path, JACCARD)
    if table.empty:
        return []
    chosen = table[(table["protocol"] == wanted.column) & (table["blobs"] == wanted.blobs) & table["value"].notna()]
    return [row for _, row in chosen.head(1).iterrows()]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
