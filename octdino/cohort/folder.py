"""Reader of a user's own scans: a CSV with a path column, class folders, or a folder of clinical exports."""

import logging
from pathlib import Path

from octdino.cohort.clinical_rows import ClinicalFiles
from octdino.cohort.file_index import FileIndex
from octdino.cohort.folder_table import read_scan_table
from octdino.cohort.folder_tree import read_tree
from octdino.cohort.scan_table import ScanTable
from octdino.cohort.spreadsheet import find_column, read_spreadsheet
from octdino.config.cohort import CohortSettings
from octdino.errors import UserError

log = logging.getLogger("octdino.cohort")


def read_folder(settings: CohortSettings) -> ScanTable:
    """Read the rows of the table; without one, all scans below root, with classes by folder or unlabeled.

    Raises:
        UserError: the root, the table, its path column or a named label is missing, there is nothing to read, or the
            folders may be patients as well as classes.
    """
    assert settings.root is not None, "the settings check it"
    file_index = FileIndex(settings.root)
    clinical = ClinicalFiles(file_index)
    table = _find_csv(settings, file_index) if settings.folders == "auto" else None
    if table is None:
        return read_tree(settings, file_index, clinical)
    found = read_scan_table(settings, file_index, clinical, table)
    if not found.labels and settings.table is None and any(file in clinical for file in file_index.files):
        # A list of files beside exports, such as devices and anonymizers write: the headers say more than it does.
        log.warning(
            "%s: no label column, so it is not read: the headers of the clinical files below %s are; cohort.table "
            "names a table that has labels", table, file_index.root,
        )  # fmt: skip
        return read_tree(settings, file_index, clinical)
    return found


def _find_csv(settings: CohortSettings, file_index: FileIndex) -> Path | None:
    if settings.table is not None:
        inside = file_index.root / settings.table
        return inside if not settings.table.is_file() and inside.is_file() else settings.table
    tables = [
        file_index.root / name for name in sorted(file_index.files) if "/" not in name and name.lower().endswith(".csv")
    ]
    tables = [path for path in tables if find_column(read_spreadsheet(path, "cohort.table"), "path")]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{file_index.root}: several tables with a path column: {names}; name one by cohort.table")
    return tables[0] if tables else None
