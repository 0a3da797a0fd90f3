"""Reading of label tables made by hand: CSV or Excel as text by column name, with row numbers for messages."""

import io
import logging
import math
import re
from pathlib import Path

import pandas as pd

from octdino.cohort.table_text import decode_table, split_separator, with_decimal_points
from octdino.errors import UserError

log = logging.getLogger("octdino.cohort")

MISSING = {"", "nan", "na", "n/a", "null", "none", "<na>", "#n/a"}


def read_spreadsheet(path: Path, key: str, content: bytes | None = None, sheet: str | None = None) -> pd.DataFrame:
    """Read a spreadsheet as stripped text, missing cells empty; the index is the row number shown in Excel, from 2.

    The separator (comma, semicolon, tab) and the encoding of a CSV are detected; decimal commas become points where a
    semicolon or a tab separates. A column without a name is ignored, with a warning if it is not empty.

    Args:
        path: .csv, .tsv or .xlsx.
        key: the setting that names the table, for messages.
        content: the file's content, if already read or from an archive.
        sheet: of a workbook; the first by default.

    Raises:
        UserError: no such file, not a table, or two columns of one name.
    """
    if content is None and not path.is_file():
        raise UserError(f"{path}: no such table; {key} says where it is")
    separator = ","
    try:
        if is_workbook(path):
            source = path if content is None else io.BytesIO(content)
            table = pd.read_excel(source, sheet_name=sheet or 0, dtype=object, header=None, engine="openpyxl")
        else:
            text = decode_table(path, path.read_bytes() if content is None else content)
            separator, text = split_separator(text, path.suffix.lower())
            table = pd.read_csv(
                io.StringIO(text), sep=separator, dtype=str, header=None, keep_default_na=False, skip_blank_lines=False
            )
    except UserError:
        raise
    except (ValueError, OSError, KeyError, TypeError) as error:  # pandas' parser errors are ValueErrors, zip's OSErrors
        raise UserError(f"{path}: cannot be read as a table: {error}; expected CSV or Excel") from None
    except Exception as error:  # zipfile.BadZipFile, csv.Error and the like share no base class
        raise UserError(f"{path}: cannot be read as a table: {type(error).__name__}: {error}") from None
    table = _with_header(path, table)
    return table if separator == "," else with_decimal_points(table)


def _with_header(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows below the first, as stripped text, with the first as names."""
    if not len(table):
        raise UserError(f"{path}: empty; expected a header and rows")
    names = [_name_of(cell) for cell in table.iloc[0]]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(f"{path}: column {', '.join(twice)} occurs twice")
    table = table.iloc[1:].map(cell_text)
    table.index = pd.RangeIndex(2, len(table) + 2)
    lost = [number for number, name in enumerate(names) if not name and (table.iloc[:, number] != "").any()]
    if lost:
        log.warning("%s: column %s: no name, ignored", path, ", ".join(str(number + 1) for number in lost))
    table = table.set_axis(names, axis=1).loc[:, [name != "" for name in names]]
    return table[(table != "").any(axis=1)]


def is_workbook(path: Path) -> bool:
    """Return whether a file is Excel's, by its suffix."""
    return path.suffix.lower() in {".xlsx", ".xlsm"}


def sheet_names(path: Path) -> list[str]:
    """Return the names of a workbook's sheets, in order.

    Raises:
        UserError: it is damaged.
    """
    try:
        with pd.ExcelFile(path, engine="openpyxl") as book:
            return [str(name) for name in book.sheet_names]
    except Exception as error:  # zipfile.BadZipFile, KeyError, XML errors share no base class
        raise UserError(f"{path}: cannot be read as a table: {type(error).__name__}: {error}") from None


def _name_of(cell: object) -> str:
    """Return a header cell as text; words such as NA and None are valid names."""
    if isinstance(cell, float) and not math.isnan(cell) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None or cell is pd.NA or cell != cell else " ".join(str(cell).split())


def cell_text(cell: object) -> str:
    """Return a cell as stripped text; empty where missing."""
    if isinstance(cell, float) and cell.is_integer():  # Excel and pandas turn whole numbers with gaps into floats
        return str(int(cell))
    text = str(cell).strip()
    return "" if text.casefold() in MISSING else text


def require_column(table: pd.DataFrame, path: Path, *names: str) -> str:
    """Return the table's spelling of the first of `names` that it has: exact match first, else ignoring case.

    Raises:
        UserError: it has none of them.
    """
    found = find_column(table, *names)
    if found is None:
        have = ", ".join(map(str, table.columns))
        raise UserError(f"{path}: no column {names[0]!r}; it has {have}")
    return found


def find_column(table: pd.DataFrame, *names: str) -> str | None:
    """As `require_column`, but None if there is none."""
    own = {str(name).casefold(): str(name) for name in table.columns}
    same = {str(name) for name in table.columns}
    return next((name if name in same else own[name.casefold()] for name in names if name.casefold() in own), None)


def parse_label(text: str) -> int | None:
    """Parse a label: 0, 1, or None where missing.

    Raises:
        ValueError: it is something else.
    """
    if text in ("0", "1"):
        return int(text)
    if text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value not in (0, 1):
        raise ValueError(f"{text!r}, expected 0, 1 or empty")
    return int(value)


def parse_number(text: str, low: float, high: float) -> float | None:
    """Parse a clinical value; None where missing.

    Raises:
        ValueError: not a number, or outside [low, high].
    """
    if text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r}, expected a number from {low:g} to {high:g}") from None
    if not low <= value <= high:
        raise ValueError(f"{text!r}, expected a number from {low:g} to {high:g}")
    return value


def parse_identifier(text: str) -> str:
    """Return a patient or eye id; `201.0`, as spreadsheets write it, becomes `201`."""
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text
