"""Cells of CSV tables that a spreadsheet would take for a formula, and how they are written instead.

Names of files and patients come from other people; `=HYPERLINK(...)` as a file's name would be a formula in whoever's
spreadsheet opens manifest.csv or quarantine.csv. Such a cell gets an apostrophe before it, which spreadsheets show as
text (OWASP, CSV injection). Reading takes exactly one apostrophe away, so that ids stay what they are; cells that had
apostrophes before the sign get one more. Numbers are left alone, negative ones too. The page's own CSV files
(report/page.js) follow the same rule.
"""

import re
from collections.abc import Callable

import pandas as pd

NUMBER = r"[+-]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?(?: ?%)?\Z"
FORMULA = rf"(?!{NUMBER})[=+\-@\t\r]"
SIGNS = "'=+-@\t\r"
ESCAPABLE, ESCAPED = re.compile(rf"'*{FORMULA}"), re.compile(rf"'+{FORMULA}")


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose text cells, those of dtype string, begin no formula."""
    return _changed(table, lambda cell: "'" + cell if ESCAPABLE.match(cell) else cell)


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table that was given to `escape_formulas`. Cells that begin a formula, of files edited by hand, stay."""
    return _changed(table, lambda cell: cell[1:] if ESCAPED.match(cell) else cell)


def text_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The cells of each column of dtype string; a missing one is empty."""
    names = [str(name) for name, dtype in table.dtypes.items() if isinstance(dtype, pd.StringDtype)]
    return {name: table[name].fillna("").tolist() for name in names}


def _changed(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with the text cells changed that begin with an apostrophe or a sign: few, and often none."""
    changed = {}
    for name, cells in text_columns(table).items():
        if rows := [row for row, cell in enumerate(cells) if cell[:1] in SIGNS and cell]:
            changed[name] = table[name].copy()
            changed[name].iloc[rows] = [change(cells[row]) for row in rows]
    return table.assign(**changed)
