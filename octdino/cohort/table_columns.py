"""The columns of a user's table: which one is the path, the patient, the eye and so on, by their usual names."""

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from octdino.cohort.spreadsheet import find_column, parse_label, require_column
from octdino.config.cohort import CohortSettings
from octdino.data.column_names import ALSO, KNOWN, PATH_NAMES, loose
from octdino.errors import UserError

SIDES = {
    **dict.fromkeys(("od", "r", "re", "right", "rechts"), "OD"),
    **dict.fromkeys(("os", "l", "le", "left", "links"), "OS"),
}
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
FLAGS = {  # words that can mean nothing else in a column of them
    **dict.fromkeys(("true", "yes", "y", "ja", "j", "wahr", "oui", "vrai"), 1),
    **dict.fromkeys(("false", "no", "n", "nein", "falsch", "non", "faux"), 0),
}
PROBED = 200  # cells of a column of paths that are looked up

log = logging.getLogger("octdino.cohort")


@dataclass
class Columns:
    """What the columns of a table are.

    Attributes:
        names: the table's column by meaning: path, and those of KNOWN that it has.
        labels: the label columns, or the classes.
        class_column: the column whose values are the classes; empty where labels are columns.
        decisions: what was decided without the user, as sentences for the log and the data card.
    """

    names: dict[str, str]
    labels: list[str] = field(default_factory=list)
    class_column: str = ""
    decisions: list[str] = field(default_factory=list)

    @property
    def label_columns(self) -> list[str]:
        """The columns that labels are read from."""
        return [self.class_column] if self.class_column else self.labels

    def unread(self, table: pd.DataFrame) -> list[str]:
        """Return the columns of the table that are not read."""
        read = {*self.names.values(), *self.label_columns}
        return [str(name) for name in table.columns if name not in read]


def find_meanings(
    settings: CohortSettings, table: pd.DataFrame, path: Path, is_scan: Callable[[str], bool]
) -> dict[str, str]:
    """Return the table's column by meaning: path, patient, eye and so on.

    Args:
        settings: labels, class_column and ignore name columns that have no such meaning.
        is_scan: whether a cell names a file below the root.

    Raises:
        UserError: there is no path column or several, or a column that is to be ignored is not there.
    """
    ignored = {require_column(table, path, name) for name in settings.ignore if name != "split"}
    chosen = {*(settings.labels or []), settings.class_column or ""}
    named = {found for name in chosen if name and (found := find_column(table, name))}
    kept = table.drop(columns=sorted(ignored))
    names = {"path": _path_column(kept, path, is_scan, named)}
    for own, alike in KNOWN.items():
        if found := _find(kept, alike, set(names.values())):
            names[own] = found
            continue
        for name in ALSO.get(own, ()):
            found = _find(kept, (name,), named | set(names.values()))
            if found and _looks_like(own, [cell for cell in kept[found].tolist() if cell]):
                names[own] = found
                break
    if "split" in settings.ignore:
        names.pop("split", None)
    return names


def has_path_column(table: pd.DataFrame, is_scan: Callable[[str], bool]) -> bool:
    """Return whether a table lists scans: a column path, or one of a similar name whose cells name files."""
    return find_column(table, "path") is not None or bool(_path_columns(table, is_scan))


def _path_column(table: pd.DataFrame, path: Path, is_scan: Callable[[str], bool], named: Collection[str]) -> str:
    """Return the path column.

    Raises:
        UserError: there is none, or several whose cells name files.
    """
    if found := find_column(table, "path"):
        return found
    columns = [name for name in _path_columns(table, is_scan) if name not in named]
    if len(columns) > 1:
        raise UserError(
            f"{path}: columns {', '.join(columns)} all name scans; rename one to path, or leave the others out by "
            f"cohort.ignore: [{', '.join(columns[1:])}]"
        )
    if columns:
        return columns[0]
    if found := _find(table, PATH_NAMES, named):  # so that its rows are refused, each with its reason
        return found
    have = ", ".join(map(str, table.columns))
    raise UserError(f"{path}: no column 'path'; it has {have} (also read: {', '.join(PATH_NAMES[1:6])}, …)")


def _path_columns(table: pd.DataFrame, is_scan: Callable[[str], bool]) -> list[str]:
    """Return the columns with a name of PATH_NAMES some of whose first cells name files."""
    alike = {loose(name) for name in PATH_NAMES}
    columns = [str(name) for name in table.columns if loose(str(name)) in alike]
    return [
        name for name in columns if any(is_scan(cell) for cell in table[name].iloc[:PROBED].tolist() if cell)
    ]  # fmt: skip


def _find(table: pd.DataFrame, names: Collection[str], taken: Collection[str]) -> str | None:
    """Return the first column with one of these names, that is not taken: exact, then ignoring case, then loosely."""
    free = table.drop(columns=[name for name in table.columns if name in taken])
    if found := find_column(free, *names):
        return found
    for name in names:
        same = [str(column) for column in free.columns if loose(str(column)) == loose(name)]
        if len(same) == 1:
            return same[0]
    return None


def _looks_like(own: str, cells: list[str]) -> bool:
    """Return whether the cells of a column can have this meaning; one of 0 and 1 only is rather a label."""
    values = {cell.casefold() for cell in cells}
    if not values or all(is_flag(value) for value in values):
        return False
    if own == "laterality":
        return values <= SIDES.keys()
    if own == "split":
        return values <= SPLIT_WORDS.keys()
    if own in ("slice", "cst"):
        return all(re.fullmatch(r"\d+(\.\d+)?", value) for value in values)
    return True


def parse_flag(text: str) -> int | None:
    """Parse a label cell: 0, 1, yes, no, true, false and the like, or None where missing.

    Raises:
        ValueError: it is something else.
    """
    word = FLAGS.get(text.casefold())
    try:
        return parse_label(text) if word is None else word
    except ValueError as error:
        raise ValueError(f"{error}, or yes, no, true, false") from None


def is_flag(text: str) -> bool:
    """Return whether a cell can be a label's."""
    try:
        parse_flag(text)
    except ValueError:
        return False
    return True
