"""Reader of OLIVES' biomarker and clinical tables over an image tree, in the published form and in the VIP Cup's.

The trees contain both eyes and derived images; only the scans that the tables name are read, and nothing is globbed.

IEEE SPS VIP Cup 2023: six of the biomarkers under the names B1 to B6, a label table of paths without patients (they
come from the scan's row of the clinical table, or from rows with the same folder), and zeros where the published table
has no value (12 scans): they are kept as they are published.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.cohort.file_index import FileIndex, clean_path
from octdino.cohort.scan_table import Quarantine, RowRefused, ScanTable, build_scan_tables
from octdino.cohort.spreadsheet import (
    find_column,
    parse_identifier,
    parse_label,
    parse_number,
    read_spreadsheet,
    require_column,
)
from octdino.data.olives_names import BIOMARKERS, PATH, VIP_BIOMARKERS, VIP_PATH
from octdino.errors import UserError

BCVA = (0.0, 100.0)  # ETDRS letters
CST = (50.0, 2000.0)  # µm
PATIENT_COLUMNS = ("Patient_ID", "Eye_ID", "BCVA", "CST")

Records = dict[str, dict[str, Any]]  # by path

log = logging.getLogger("octdino.cohort")


def read_tables(file_index: FileIndex, label_table: Path, clinical_table: Path, cohort: str) -> ScanTable:
    """Read labeled scans in the order of the label table, then the others in the order of the clinical table.

    Raises:
        UserError: a table, a column or all of the tree is missing.
    """
    named = ((label_table, "cohort.table"), (clinical_table, "cohort.clinical"))
    spreadsheets = [read_spreadsheet(path, key, file_index.content(path)) for path, key in named]
    vip = bool(find_column(spreadsheets[0], "B1"))
    if find_column(spreadsheets[0], VIP_PATH):
        raise UserError(f"{label_table}: the VIP Cup's test scans, which have no labels; expected its training labels")
    labels = list(VIP_BIOMARKERS.values() if vip else BIOMARKERS)
    reader = TableReader(file_index)
    names = (
        {label: require_column(spreadsheets[0], label_table, name) for name, label in VIP_BIOMARKERS.items()}
        if vip
        else {label: require_column(spreadsheets[0], label_table, label) for label in BIOMARKERS}
    )
    labeled = reader.read(spreadsheets[0], label_table, names, has_patients=not vip)
    clinical = reader.read(spreadsheets[1], clinical_table, {})
    reader.check_folders()
    if vip:
        _fill_patients(labeled, clinical)
    _flag_laterality(labeled.values(), clinical.values())
    for path, record in labeled.items():
        if path in clinical:
            _complete(record, clinical[path], reader.quarantine)
        elif not record["patient"]:
            detail = (
                f"{label_table.name} row {record['row']}: neither the scan nor its folder is in {clinical_table.name}"
            )
            reader.quarantine.add(record["table_path"], record["row"], "missing_patient", detail)
    records = [r for r in labeled.values() if r["patient"]]
    records += [r for path, r in clinical.items() if path not in labeled]
    log.info("%s and %s name %d scans, %d labeled", label_table, clinical_table, len(records), len(labeled))
    return ScanTable(
        file_index.root, *build_scan_tables(records, cohort, labels), reader.quarantine, True, source=file_index.source
    )


def read_values(cell: dict[str, str], labels: Iterable[str]) -> dict[str, Any]:
    """Parse a row's patient, eye, labels, bcva, cst and slice.

    Raises:
        RowRefused: a label or a value is not allowed.
    """
    record: dict[str, Any] = {
        "patient": parse_identifier(cell.get("Patient_ID", "")),
        "eye": parse_identifier(cell.get("Eye_ID", "")),
        "truth": {},
    }
    for name in labels:
        try:
            record["truth"][name] = parse_label(cell[name])
        except ValueError as error:
            raise RowRefused("bad_label", f"{name}: {error}") from None
    for name, bounds in (("BCVA", BCVA), ("CST", CST), ("slice", (1, 10_000))):
        try:
            record[name.lower()] = parse_number(cell.get(name, ""), *bounds)
        except ValueError as error:
            raise RowRefused("bad_value", f"{name}: {error}") from None
    return record


class TableReader:
    """Reader of table rows as records, by the file that each row names."""

    def __init__(self, file_index: FileIndex) -> None:
        self.file_index = file_index
        self.quarantine = Quarantine()
        self._gone: set[str] = set()  # paths refused by an earlier table: a scan is in the quarantine once
        self._folders: dict[str, str | None] = {}  # first step of a path: the folder that it means

    def read(self, table: pd.DataFrame, path: Path, labels: dict[str, str], has_patients: bool = True) -> Records:
        """Return the accepted rows of one table; `labels` by column; `has_patients`: whether it has patient columns."""
        names = {"path": require_column(table, path, PATH, "File_Path", "Path", VIP_PATH), **labels}
        if has_patients:
            names |= {name: require_column(table, path, name) for name in PATIENT_COLUMNS}
        if scan := find_column(table, "Scan (n/49)"):
            names["slice"] = scan
        records: Records = {}
        rows: dict[str, int] = {}
        gone: set[str] = set()
        columns = [table[name].tolist() for name in names.values()]
        for row, *cells in zip(table.index.tolist(), *columns, strict=True):
            cell = dict(zip(names, cells, strict=True))
            try:
                record = self._record(cell, list(labels), has_patients)
                if record is None:
                    continue
                if (first := rows.setdefault(record["path"], row)) != row:
                    raise RowRefused("duplicate_path", f"named in row {first} of {path.name} already")
            except RowRefused as why:
                self.quarantine.add(cell["path"], row, why.reason, f"{path.name} row {row}: {why.detail}")
                gone.add(_key(cell["path"]))
                continue
            record |= {"row": row, "table_path": cell["path"], "known": True, "given_split": ""}
            records[record["path"]] = record
        self._gone |= gone - {_key(record["table_path"]) for record in records.values()}
        return records

    def _record(self, cell: dict[str, str], labels: list[str], has_patients: bool) -> dict[str, Any] | None:
        """Check one row and return it as a record; None if an earlier table's row of this path was refused."""
        if not cell["path"]:
            raise RowRefused("missing_path", "the path is empty; expected the path of a scan")
        if _key(cell["path"]) in self._gone:
            return None
        clean, place = _place(cell["path"])
        found = self._resolve(clean)
        if has_patients and not cell["Patient_ID"]:
            raise RowRefused("missing_patient", "Patient_ID is empty; without it the scan could be in two splits")
        values = read_values(cell, labels)
        record = place | values | {"path": found, "id_path": clean, "slice": values["slice"] or place["slice"]}
        record["flags"] = "" if found.endswith(cell["path"].lstrip("/")) else "path_changed"
        record["mask"] = self.file_index.mask_of(found, found[: -len(clean)])
        return record

    def _resolve(self, clean: str) -> str:
        """Return the file below root that a clean path names, in whichever folder the image tree is."""
        first, _, rest = clean.partition("/")
        if first not in self._folders:
            self._folders[first] = self.file_index.find_folder(first)
        folder = self._folders[first]
        if folder is None:
            raise RowRefused("missing_file", f"no folder {first!r} below the root")
        try:
            found = self.file_index.resolve(f"{folder}/{rest}")
        except LookupError as error:
            raise RowRefused("bad_path", str(error)) from None
        if found is None:
            raise RowRefused("missing_file", f"no file {folder}/{rest} below the root")
        return found

    def check_folders(self) -> None:
        """Refuse a root without any of the tables' folders: it is wrong, rather than a cohort with bad rows.

        Raises:
            UserError: none of the tables' folders lies below root.
        """
        if self._folders and not any(self._folders.values()):
            names = " or ".join(repr(name) for name in sorted(self._folders)[:4])
            raise UserError(f"{self.file_index.root}: no folder {names} below it; the tables' paths begin with these")
        for name, folder in self._folders.items():
            if folder is None:
                log.warning("no folder %r below %s: its scans are refused", name, self.file_index.root)


def _key(path: str) -> str:
    return path.strip().replace("\\", "/").strip("/").casefold()


def _place(path: str) -> tuple[str, dict[str, Any]]:
    """Parse `{trial}/…/{visit}/{OD|OS}/{file}`: the clean path and its fields; the last number counts slices from 0."""
    try:
        clean = clean_path(path)
    except ValueError as error:
        raise RowRefused("bad_path", str(error)) from None
    parts = clean.split("/")
    if len(parts) < 4 or parts[-2].upper() not in ("OD", "OS"):
        raise RowRefused("bad_path", f"{path}; expected {{trial}}/…/{{visit}}/{{OD or OS}}/{{file}}")
    numbers = re.findall(r"\d+", parts[-1].rsplit(".", 1)[0])
    trial = next((name for name in ("PRIME", "TREX") if name in parts[0].upper()), parts[0])
    place = {"trial": trial, "visit": parts[-3], "laterality": parts[-2].upper()}
    return clean, place | {"slice": int(numbers[-1]) + 1 if numbers else None}


def _fill_patients(labeled: Records, clinical: Records) -> None:
    """Fill patient and clinical values from the scan's row in the clinical table, else from its folder and visit.

    In the real tables 98 scans of 02-016 are not in the clinical table: it has them on the other side.
    """
    near: dict[str, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for record in clinical.values():
        folder, visit = _folders(record)
        for place, name in ((folder, "patient"), (folder, "eye"), (visit, "bcva"), (visit, "cst")):
            near[place][name].add(record[name])
    for path, record in labeled.items():
        folder, visit = _folders(record)
        for place, name in ((folder, "patient"), (folder, "eye"), (visit, "bcva"), (visit, "cst")):
            values = {clinical[path][name]} if path in clinical else near[place][name]
            record[name] = next(iter(values)) if len(values) == 1 else None if name in ("bcva", "cst") else ""


def _folders(record: dict[str, Any]) -> tuple[str, str]:
    """Return the folders of the scan's patient and visit: `{trial}/…/{folder}` and `{trial}/…/{folder}/{visit}`."""
    visit = record["id_path"].rsplit("/", 2)[0]
    return visit.rpartition("/")[0], visit


def _complete(record: dict[str, Any], clinical: dict[str, Any], quarantine: Quarantine) -> None:
    """Fill a labeled scan's clinical values from the clinical table, and flag differences."""
    if record["patient"] != clinical["patient"]:
        detail = f"Patient_ID {record['patient']} in row {record['row']} of the biomarker table, "
        detail += f"{clinical['patient']} in row {clinical['row']} of the clinical table"
        quarantine.add(record["table_path"], record["row"], "missing_patient", detail)
        record["patient"] = None
        return
    for name in ("bcva", "cst", "eye"):
        if clinical[name] in (None, ""):
            continue
        if record[name] not in (None, "", clinical[name]):
            _flag(record, "table_clash")
        record[name] = clinical[name]


def _flag_laterality(labeled: Any, clinical: Any) -> None:
    """Flag labeled scans with another laterality in the clinical table: 98 scans of 02-016 in the real tables."""
    sides: dict[str, set[str]] = defaultdict(set)
    for record in clinical:
        sides[record["eye"]].add(record["laterality"])
    for record in labeled:
        if record["eye"] and record["eye"] in sides and record["laterality"] not in sides[record["eye"]]:
            _flag(record, "laterality_clash")


def _flag(record: dict[str, Any], flag: str) -> None:
    if flag not in record["flags"].split():
        record["flags"] = f"{record['flags']} {flag}".strip()
