"""Escaping of CSV cells that a spreadsheet would evaluate as a formula (CSV injection).

File names and patient ids come from outside; `=HYPERLINK(...)` as a file name would be a formula in a spreadsheet that
opens manifest.csv or quarantine.csv. Such a cell is prefixed with an apostrophe, which spreadsheets show as text
(OWASP, CSV injection). Reading removes exactly one apostrophe, so that ids stay unchanged; cells that had apostrophes
before the sign get one more. Numbers are not changed, including negative ones. The page's own CSV files
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
    """Return the table with all text cells (dtype string) escaped that begin a formula."""
    return _changed(table, lambda cell: "'" + cell if ESCAPABLE.match(cell) else cell)


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Undo `escape_formulas`. Unescaped cells that begin a formula, from files edited by hand, stay."""
    return _changed(table, lambda cell: cell[1:] if ESCAPED.match(cell) else cell)


def text_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the cells of each column of dtype string; a missing cell is empty."""
    names = [str(name) for name, dtype in table.dtypes.items() if isinstance(dtype, pd.StringDtype)]
    return {name: table[name].fillna("").tolist() for name in names}


def _changed(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Apply `change` to the text cells that begin with an apostrophe or a sign: few, and often none."""
    changed = {}
    for name, cells in text_columns(table).items():
        if rows := [row for row, cell in enumerate(cells) if cell[:1] in SIGNS and cell]:
            changed[name] = table[name].copy()
            changed[name].iloc[rows] = [change(cells[row]) for row in rows]
    return table.assign(**changed)
