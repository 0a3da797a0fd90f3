"""What a dry run reads of a user's own files: the table's columns and number of rows, and whether all are plain images.

Only the header, line ends and file names are read: the cohort stage checks every cell.
"""

import csv
import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

from octdino.config.cohort import CohortSettings
from octdino.data.column_names import loose, names_of

MOST_BYTES = 64_000_000  # of a table that is read
MOST_FILES = 20_000  # that are listed
IMAGE = re.compile(r"\.(?:png|jpe?g|bmp)\b", re.IGNORECASE)
IMAGES = {".png", ".jpg", ".jpeg", ".bmp"}
NO_SCANS = {".md", ".json", ".yaml", ".yml", ".pdf", ".html"}  # a table that was not understood may have values


class TableGlance(NamedTuple):
    """The table of a cohort `folder`.

    Attributes:
        columns: its header in lower case, without blanks and punctuation; `cst` also where it is written out.
        rows: without the header and empty lines at its end.
        plain: whether each row names an image, which has no header with patients or thickness.
    """

    path: Path
    columns: set[str]
    rows: int
    plain: bool


def glance_at_table(cohort: CohortSettings) -> TableGlance | None:
    """Return the table of a cohort `folder`; None if it has none, or one that takes long to read."""
    if cohort.name != "folder" or cohort.folders != "auto" or cohort.root is None:
        return None
    if cohort.table is not None:
        return _read(cohort.table_file or cohort.table)
    if not cohort.root.is_dir():
        return None
    with os.scandir(cohort.root) as entries:
        tables = sorted(Path(entry.path) for entry in entries if entry.name.lower().endswith(".csv"))
    found = [table for path in tables if (table := _read(path)) and "path" in table.columns]
    return found[0] if len(found) == 1 else None


def only_images(root: Path) -> bool:
    """Whether all files below `root` are plain images or no scans at all; false if there are too many to list."""
    count = 0
    for _, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += len(files)
        suffixes = {Path(name).suffix.lower() for name in files if not name.startswith(".")}
        if count > MOST_FILES or suffixes - IMAGES - NO_SCANS:
            return False
    return count > 0


def _read(path: Path) -> TableGlance | None:
    """Read a CSV with any common separator; None if it is no text, or larger than MOST_BYTES."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return _parse(path, found.st_mtime_ns, found.st_size) if found.st_size <= MOST_BYTES else None


@functools.cache
def _parse(path: Path, changed: int, size: int) -> TableGlance | None:
    """Parse a table once per content, which its time stamp and size stand for."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    separator = None
    if lines and (match := re.fullmatch(r"sep=(.)", lines[0].strip())):  # Excel's own first line
        separator, lines = match[1], lines[1:]
    header = lines[0] if lines else ""
    names = next(csv.reader([header], delimiter=separator or max(",;\t", key=header.count)), [])
    columns = {loose(name) for name in names}
    if columns & names_of("cst"):
        columns.add("cst")
    rows = lines[1:]
    return TableGlance(path, columns, len(rows), sum(len(IMAGE.findall(row)) for row in rows) >= len(rows))
