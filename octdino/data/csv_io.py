"""Reading and writing of CSV tables by the schemas of `octdino.data.schemas.csv_schemas`; every cell read is checked.

Columns beyond a schema's own are labels (manifest, predictions) or numbers (history).
"""

import csv
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.data.atomic_files import replacing
from octdino.data.formula_cells import escape_formulas, text_columns, unescape_formulas
from octdino.data.schemas.column import Column, Schema
from octdino.data.schemas.csv_schemas import MANIFEST, PROBABILITY
from octdino.errors import UserError, short

# Columns that identify a row in a table of the evaluate stage, except the seed.
ROW_KEYS = ("cohort", "arm", "backbone", "fraction", "reference", "subgroup", "group", "label", "metric")


def labels_of(manifest: pd.DataFrame) -> list[str]:
    """Return the label columns of a manifest, in order."""
    return [str(name) for name in manifest.columns if name not in MANIFEST.names]


def leading_metric(metrics: pd.DataFrame) -> tuple[str, str]:
    """Return the primary metric and its display name: accuracy where labels exclude each other, else macro AUROC."""
    return ("accuracy", "accuracy") if (metrics["metric"] == "accuracy").any() else ("auroc", "macro AUROC")


def one_seed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are the mean over seeds where there are several, else those of the only seed.

    Args:
        table: of the evaluate stage; rows that differ in one of its columns of ROW_KEYS are kept apart.
    """
    keys = [name for name in ROW_KEYS if name in table]
    means_first = table.sort_values("seed", na_position="first", kind="stable")
    return means_first.drop_duplicates(keys).sort_index(kind="stable")


def probability_column(label: str) -> str:
    """Return the column of predictions.csv with the predicted probability of `label`."""
    return f"{PROBABILITY}{label}"


def label_matrix(manifest: pd.DataFrame, labels: list[str] | None = None) -> np.ndarray:
    """Return ground-truth labels as float32 [N, L]: 0, 1, or NaN where missing."""
    return manifest[labels if labels is not None else labels_of(manifest)].to_numpy(np.float32, na_value=np.nan)


def read_table(path: Path, schema: Schema) -> pd.DataFrame:
    """Read a CSV table with the schema's types and check every cell.

    Raises:
        UserError: one line; the file or a column is missing, a column name occurs twice, or a cell has a value that its
            column does not allow.
    """
    header = read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    names = header.iloc[0].tolist()
    _check_header(path, names, schema)
    text = {column.name: "string" for column in schema if column.dtype == "string"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more cells than the header
            table = read_csv(
                path, dtype=text, index_col=False, keep_default_na=False, low_memory=False,
                na_values={name: [""] for name in names if name not in text},
            )  # fmt: skip
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: a row has more cells than the header; expected {len(names)}") from None
    return check_table(path, unescape_formulas(table), schema)


def read_csv(path: Path, **how: Any) -> pd.DataFrame:
    """Read a CSV written by octdino with pandas; `how`: further arguments of `pd.read_csv`.

    Raises:
        UserError: it cannot be read: missing, empty, no text, rows of different lengths.
    """
    if not path.is_file():  # nor a pipe, which would never end
        raise UserError(f"{path}: no such table")
    try:
        table: pd.DataFrame = pd.read_csv(path, encoding="utf-8-sig", **how)
    except (ValueError, OverflowError, OSError, MemoryError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: cannot be read as CSV: {error}; expected the table as octdino wrote it") from None
    return table


def _check_header(path: Path, names: list[str], schema: Schema) -> None:
    if missing := [name for name in schema.names if name not in names]:
        raise UserError(f"{path}: no column {', '.join(missing)}; expected {', '.join(schema.names)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: column {twice[0] or 'without a name'} occurs twice")
    if (name_fault := schema.name_fault) is None:
        return
    for name in names:
        if name not in schema.names and (fault := name_fault(name)):
            raise UserError(f"{path}: column {names.index(name) + 1}, {name!r}, {fault}; rename it or take it out")


def check_table(path: Path, table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Convert a table to the schema's types and check every cell.

    Raises:
        UserError: a cell has a value that its column does not allow, or two rows have the same key.
    """
    typed = {column.name: _checked(path, table[column.name], column) for column in schema}
    rest = [name for name in table.columns if name not in typed]
    if schema.rest:
        for name in rest:
            _checked(path, table[name], schema.rest)
    if schema.key and (twice := table.duplicated(list(schema.key))).any():
        row = int(np.argmax(twice))
        words = ", ".join(f"{name} {table[name].iloc[row]}" for name in schema.key)
        raise UserError(f"{path}: row {row + 2}: {words} occurs twice")
    return table.assign(**typed)


def _checked(path: Path, cells: pd.Series, column: Column) -> pd.Series:
    """Convert the cells of one column to its type, after checking them."""
    values: pd.Series[Any]
    if column.dtype == "string":
        values = cells.astype("string").fillna("")
        empty, bad = values == "", pd.Series(False, index=cells.index)
    else:
        empty, (values, bad) = cells.isna(), _numbers(cells, column)
    if column.allowed is not None:
        bad |= ~values.isin(column.allowed) & ~empty
    if column.pattern is not None:
        bad |= ~values.str.fullmatch(column.pattern) & ~empty
    if column.low is not None:
        bad |= values < column.low  # type: ignore[operator]
    if column.high is not None:
        bad |= values > column.high  # type: ignore[operator]
    if column.needed:
        bad |= empty
    if (bad := bad.fillna(False).astype(bool)).any():
        row = int(np.argmax(bad))
        cell = cells.iloc[row]
        shown = f"{cell:g}" if isinstance(cell, float) else short(cell.item() if isinstance(cell, np.generic) else cell)
        shown = "empty" if empty.iloc[row] else shown
        raise UserError(f"{path}: row {row + 2}: {cells.name} is {shown}; expected {column.expected}")
    if column.unique and (twice := values.duplicated()).any():
        row = int(np.argmax(twice))
        raise UserError(f"{path}: row {row + 2}: {cells.name} {values.iloc[row]} occurs in two rows; expected one")
    typed: pd.Series[Any] = values.astype(column.dtype)  # type: ignore[call-overload]
    return typed


def _numbers(cells: pd.Series, column: Column) -> tuple[pd.Series, pd.Series]:
    """Convert cells to numbers, NaN where empty or invalid; return also which of them are invalid."""
    if cells.dtype == bool:  # pandas parses True and False as bool
        return cells.astype("float64"), pd.Series(True, index=cells.index)
    try:
        numbers = pd.to_numeric(cells, errors="coerce")
    except OverflowError:  # an integer of hundreds of digits
        numbers = pd.to_numeric(cells.map(str), errors="coerce")
    bad = numbers.isna() & cells.notna()
    if column.finite or column.dtype == "Int64":
        bad |= np.isinf(numbers.astype("float64"))
    if column.dtype == "Int64":
        values = numbers.astype("float64")
        bad |= numbers.notna() & ((values != np.floor(values)) | (values.abs() >= 2**63))
    return numbers.mask(bad), bad


def write_table(path: Path, table: pd.DataFrame, schema: Schema) -> None:
    """Write a CSV table, atomically, with the schema's columns first; integers stay integers, missing stays empty."""
    rest = [name for name in table.columns if name not in schema.names]
    typed = table.reindex(columns=schema.names + rest).astype({c.name: c.dtype for c in schema})
    safe = escape_formulas(typed)
    # Python's CSV writer does not quote a cell with a carriage return, which readers take as the end of the row.
    returns = any("\r" in cell for cells in text_columns(safe).values() for cell in cells)
    with replacing(path) as temporary:
        safe.to_csv(
            temporary, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
        )


def fraction_patients(splits: pd.DataFrame, fold: int, fraction: float) -> set[str]:
    """Return the training patients of a label fraction: the first groups by rank, at least one; fractions nest.

    Args:
        splits: splits.csv.
        fold: cross-validation fold.
        fraction: share of the labeled training groups, above 0 and at most 1.
    """
    train = splits[(splits["fold"] == fold) & (splits["split"] == "train") & splits["rank"].notna()]
    groups = train.sort_values("rank")["group"].unique()
    count = max(1, math.floor(fraction * len(groups) + 0.5))
    return set(train.loc[train["group"].isin(groups[:count]), "patient"])
