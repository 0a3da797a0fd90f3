"""The text of a table made by hand: its encoding, its separator, and decimal commas."""

import codecs
import csv
import io
import logging
import re
from pathlib import Path

import pandas as pd

from octdino.errors import UserError

SEPARATORS = ",;\t"
SAMPLE = 65_536  # characters from which the separator is told
ROWS = 50  # of these
COMMA = re.compile(r"[+-]?\d+,\d+")
NUMBER = re.compile(r"[+-]?\d+(?:,\d+)?")
FALLBACK = "cp1252"  # Latin-1 as Windows has it; a superset of the printable part of ISO 8859-1

log = logging.getLogger("octdino.cohort")


def decode_table(path: Path, content: bytes) -> str:
    """Return the text of a table: UTF-8 or UTF-16 by its first bytes, else Windows-1252, with a warning.

    Raises:
        UserError: it is no text.
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if content.startswith(mark):
            return _decoded(path, content, encoding)
    if b"\0" in content[:4]:  # two bytes per character without a mark: the first one is a letter of the header
        return _decoded(path, content, "utf-16-be" if content[:1] == b"\0" else "utf-16-le")
    try:
        return _printable(path, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        text = _decoded(path, content, FALLBACK)
        log.warning(
            "%s: not UTF-8 (line %d): read as Windows-1252 (Latin-1); save it as UTF-8 if names look wrong", path, row
        )
        return text


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    try:
        return _printable(path, content.decode(encoding))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as a table: no text in {encoding}, {error.reason}") from None


def _printable(path: Path, text: str) -> str:
    if "\0" in text:
        raise UserError(f"{path}: cannot be read as a table: it has zero bytes; expected text")
    return text


def split_separator(text: str, suffix: str) -> tuple[str, str]:
    """Return the table's separator and the text below Excel's own line `sep=;`, if there is one.

    Of the separators that the first row has, the one with which rows have equal numbers of cells, and the most.

    Args:
        suffix: of the file; a tab is what `.tsv` promises.
    """
    if found := re.match(r"\"?sep=(.)\"?\r?\n", text, re.IGNORECASE):
        return found[1], text[found.end() :]
    if suffix == ".tsv" and "\t" in text:
        return "\t", text
    sample = text[:SAMPLE]
    if len(text) > SAMPLE:
        sample = sample[: sample.rfind("\n") + 1] or sample
    best, separator = (False, 1), "," if suffix != ".tsv" else "\t"
    for sign in SEPARATORS:
        rows = _rows(sample, sign)
        if rows and len(rows[0]) > 1 and (score := (len({len(row) for row in rows}) == 1, len(rows[0]))) > best:
            best, separator = score, sign
    return separator, text


def _rows(sample: str, separator: str) -> list[list[str]]:
    try:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator)
        return [row for row, _ in zip(reader, range(ROWS), strict=False) if any(row)]
    except csv.Error:
        return []


def with_decimal_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with decimal points in the columns whose cells are numbers, some of them with a comma.

    A column with both is left as it is: in `1.234` the point may be one of thousands.
    """
    changed = {}
    for name in table.columns:
        cells = [cell for cell in table[name].tolist() if cell]
        if any(COMMA.fullmatch(cell) for cell in cells) and all(NUMBER.fullmatch(cell) for cell in cells):
            changed[name] = [cell.replace(",", ".") for cell in table[name].tolist()]
    return table.assign(**changed)
