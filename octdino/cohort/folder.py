"""Reader of a user's own scans: a CSV with a path column, class folders, or a folder of clinical exports."""

import logging
from pathlib import Path

import pandas as pd

from octdino.cohort.clinical_rows import ClinicalFiles
from octdino.cohort.file_index import FileIndex
from octdino.cohort.folder_table import read_scan_table
from octdino.cohort.folder_tree import read_tree
from octdino.cohort.scan_lookup import ScanLookup
from octdino.cohort.scan_table import ScanTable
from octdino.cohort.spreadsheet import is_workbook, read_spreadsheet, sheet_names
from octdino.cohort.table_columns import has_path_column
from octdino.config.cohort import CohortSettings
from octdino.errors import UserError, one_line

TABLES = (".csv", ".tsv", ".xlsx")

log = logging.getLogger("octdino.cohort")


class SeveralSheetsError(UserError):
    """Several sheets of a workbook list scans."""


def read_folder(settings: CohortSettings) -> ScanTable:
    """Read the rows of the table; without one, all scans below root, with classes by folder or unlabeled.

    Raises:
        UserError: the root, the table, its path column or a named label is missing, there is nothing to read, or the
            folders may be patients as well as classes.
    """
    assert settings.root is not None, "the settings check it"
    file_index = FileIndex(settings.root)
    clinical = ClinicalFiles(file_index)
    lookup = ScanLookup(file_index, clinical)
    found = _find_table(settings, file_index, lookup) if settings.folders == "auto" else None
    if found is None:
        return read_tree(settings, file_index, clinical)
    path, table = found
    read = read_scan_table(settings, file_index, clinical, path, table)
    guessed = read.columns.get("classes", "") if settings.class_column is None else ""
    if (not read.labels or guessed) and settings.table is None and any(file in clinical for file in file_index.files):
        # A list of files beside exports, such as devices and anonymizers write: the headers say more than it does, and
        # it lists fundus images, too.
        why = f"the column {guessed} may be no label (cohort.class_column)" if guessed else "no label column"
        log.warning(
            "%s: %s, so it is not read: the headers of the clinical files below %s are; cohort.table names a table "
            "that has labels", path, why, file_index.root,
        )  # fmt: skip
        tree = read_tree(settings, file_index, clinical)
        tree.decisions.insert(0, f"{path.name} is not read, the headers of the clinical files are: {why}.")
        return tree
    return read


def _find_table(
    settings: CohortSettings, file_index: FileIndex, lookup: ScanLookup
) -> tuple[Path, pd.DataFrame] | None:  # fmt: skip
    """Return the table of the settings, or the only one directly below root that lists scans.

    Raises:
        UserError: there are several, or one cannot be read.
    """
    if settings.table_file is not None:
        return settings.table_file, _read(settings.table_file, settings.sheet, lookup)
    names = [name for name in sorted(file_index.files) if "/" not in name and not name.startswith("~$")]
    paths = [file_index.root / name for name in names if Path(name).suffix.lower() in TABLES]
    tables = [(path, table) for path in paths if (table := _listed(path, settings.sheet, lookup)) is not None]
    if len(tables) > 1:
        named = ", ".join(path.name for path, _ in tables)
        raise UserError(f"{file_index.root}: several tables with a path column: {named}; name one by cohort.table")
    return tables[0] if tables else None


def _listed(path: Path, sheet: str | None, lookup: ScanLookup) -> pd.DataFrame | None:
    """Return a table that the settings do not name, if it lists scans; one that cannot be read is left out.

    Raises:
        SeveralSheetsError: several of its sheets list scans.
    """
    try:
        table = _read(path, sheet, lookup, required=False)
    except SeveralSheetsError:
        raise
    except UserError as error:
        log.warning("not read as a table of scans: %s", one_line(error))
        return None
    return table if has_path_column(table, lookup.is_scan) else None


def _read(path: Path, sheet: str | None, lookup: ScanLookup, required: bool = True) -> pd.DataFrame:
    """Read a table; of a workbook the named sheet, or the only one that lists scans.

    Args:
        required: whether a workbook without the named sheet is refused, and one without a list of scans named as such.

    Raises:
        UserError: no such table or sheet, it cannot be read, or several sheets list scans.
    """
    if not is_workbook(path) or not path.is_file():
        return read_spreadsheet(path, "cohort.table")
    names = sheet_names(path)
    if sheet is not None and sheet not in names and required:
        raise UserError(f"{path}: no sheet {sheet!r}; expected one of {', '.join(names)} (cohort.sheet)")
    if sheet in names:
        return read_spreadsheet(path, "cohort.table", sheet=sheet)
    if len(names) == 1:
        return read_spreadsheet(path, "cohort.table")
    tables = {name: table for name in names if (table := _sheet(path, name)) is not None}
    found = {name: table for name, table in tables.items() if has_path_column(table, lookup.is_scan)}
    if len(found) > 1:
        raise SeveralSheetsError(
            f"{path}: sheets {', '.join(found)} all have a path column; name one by cohort.sheet: {next(iter(found))}"
        )
    if found:
        log.info("%s: sheet %s, the only one with a path column", path, next(iter(found)))
        return next(iter(found.values()))
    if required:
        raise UserError(f"{path}: no sheet has a path column: {', '.join(names)}")
    return next(iter(tables.values()), pd.DataFrame())


def _sheet(path: Path, name: str) -> pd.DataFrame | None:
    """Return a sheet's table; None where it holds none, as sheets of notes and figures do."""
    try:
        return read_spreadsheet(path, "cohort.table", sheet=name)
    except UserError:
        return None
