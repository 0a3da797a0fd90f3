"""A user's table of scans: a CSV with a path column, whose rows name images, clinical files or B-scans in them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.cohort.clinical_rows import ClinicalFiles, name_patients
from octdino.cohort.file_index import FileIndex
from octdino.cohort.patient_names import PatientNames, patient_names
from octdino.cohort.scan_lookup import ScanLookup
from octdino.cohort.scan_table import Quarantine, RowRefused, ScanTable, build_scan_tables
from octdino.cohort.spreadsheet import parse_identifier, parse_number
from octdino.cohort.table_columns import SIDES, SPLIT_WORDS, Columns, find_meanings, parse_flag
from octdino.cohort.table_labels import find_labels
from octdino.config.cohort import CohortSettings
from octdino.data.column_names import KNOWN
from octdino.data.schemas.csv_schemas import MANIFEST
from octdino.errors import UserError
from octdino.scans.volumes.registry import split_address

RANGES = {  # as the manifest has them: units are the user's own
    "slice": (0, 1e6),
    **{c.name: (c.low, c.high) for c in MANIFEST if c.low is not None and c.high is not None},
}

log = logging.getLogger("octdino.cohort")


@dataclass
class _RowReader:
    """Reads rows of one table as records of scans."""

    columns: Columns
    file_index: FileIndex
    clinical: ClinicalFiles
    lookup: ScanLookup
    pattern: PatientNames

    @property
    def names(self) -> dict[str, str]:
        """The table's column by meaning."""
        return self.columns.names

    def records(self, cell: dict[str, str]) -> list[dict[str, Any]]:
        """Check one row and return its scans: one, or all B-scans of a clinical file.

        What the row leaves empty is filled from the header.

        Raises:
            RowRefused: a cell is empty or not allowed, or there is no such scan.
        """
        text = cell[self.names["path"]]
        found, index = self.lookup.resolve(text)
        record = self._record(cell, found)
        if index is None and found not in self.clinical:
            return [record | {"table_path": text}]
        frames = self.clinical.records(found, index)
        left = {"path", "id_path"} | ({"slice"} if index is None else set())  # a slice would be the same for all
        left |= set() if cell.get(self.names.get("mask", ""), "") else {"mask"}
        left |= set() if record["known"] else {"patient", "known", "eye"}  # the eye's name begins with the patient's
        own = {key: value for key, value in record.items() if value not in (None, "") and key not in left}
        own |= {"table_path": text, "flags": record["flags"], "given_split": record["given_split"]}
        return [frame | own for frame in frames]

    def _record(self, cell: dict[str, str], found: str) -> dict[str, Any]:
        """Check one row and return it as a record of the file `found`."""
        names, text = self.names, cell[self.names["path"]]
        record: dict[str, Any] = {own: cell[name] for own, name in names.items() if own not in ("path", "split")}
        record |= {"path": found, "id_path": found, "flags": "" if _names(text, found) else "path_changed"}
        if "patient" in names and not record["patient"]:
            raise RowRefused("missing_patient", f"{names['patient']} is empty; the scan could be in two splits")
        patient = record.get("patient") or self.pattern.patient(found)
        record["known"] = patient is not None
        record["patient"] = parse_identifier(found if patient is None else patient)
        self._set_eye(record)
        if not record.get("mask"):
            record["mask"] = self.file_index.mask_of(found)
        for own, bounds in RANGES.items():
            try:
                record[own] = parse_number(record.get(own, ""), *bounds)
            except ValueError as error:
                raise RowRefused("bad_value", f"{names[own]}: {error}") from None
        if record["slice"] is not None and record["slice"] % 1:
            raise RowRefused("bad_value", f"{names['slice']}: {record['slice']:g}, expected a whole number")
        record["truth"] = self._truth(cell)
        record["given_split"] = cell.get(names.get("split", ""), "")
        return record

    @staticmethod
    def _set_eye(record: dict[str, Any]) -> None:
        """Set laterality by the words for it, and the eye's name, which begins with the patient's."""
        eye, word = record.get("eye", ""), record.get("laterality", "")
        side = SIDES.get(word.casefold(), "")
        record["laterality"] = side or word or SIDES.get(eye.casefold(), "")
        if eye:
            record["eye"] = f"{record['patient']}-{parse_identifier(eye)}"
        elif side and record["known"]:
            record["eye"] = f"{record['patient']}-{side}"

    def _truth(self, cell: dict[str, str]) -> dict[str, int | None]:
        """Return the labels of a row: its cells, or which of the classes it names; empty: unknown."""
        labels = self.columns.labels
        if self.columns.class_column:
            value = cell[self.columns.class_column]
            return {name: int(name == value) for name in labels} if value else {}
        truth = {}
        for name in labels:
            try:
                truth[name] = parse_flag(cell[name])
            except ValueError as error:
                raise RowRefused("bad_label", f"{name}: {error}") from None
        return truth


def read_scan_table(
    settings: CohortSettings, file_index: FileIndex, clinical: ClinicalFiles, path: Path, table: pd.DataFrame
) -> ScanTable:
    """Read a table: each row is one scan, or all B-scans of a clinical file.

    Args:
        path: of the table, for messages.

    Raises:
        UserError: no path column, a named label is missing, only the user can tell what a column is, or a patient is in
            two splits.
    """
    lookup = ScanLookup(file_index, clinical)
    columns = Columns(find_meanings(settings, table, path, lookup.is_scan))
    find_labels(settings, table, path, columns)
    names = columns.names
    pattern = _pattern(settings, table, path, columns)
    _log_columns(path, columns)
    reader = _RowReader(columns, file_index, clinical, lookup, pattern)
    quarantine, records = Quarantine(), []
    lookup.by_name = 0
    taken: dict[str, int] = {}
    named = list(dict.fromkeys([*columns.label_columns, *names.values()]))
    for row, *cells in zip(table.index.tolist(), *[table[name].tolist() for name in named], strict=True):
        cell = dict(zip(named, cells, strict=True))
        text = cell[names["path"]]
        try:
            scans = reader.records(cell)
            if twice := next((record["path"] for record in scans if record["path"] in taken), None):
                raise RowRefused("duplicate_path", f"named in row {taken[twice]} already")
        except RowRefused as why:
            quarantine.add(text, row, why.reason, f"{path.name} row {row}: {why.detail}")
            continue
        taken |= {record["path"]: row for record in scans}
        records += [record | {"row": row} for record in scans]
    if lookup.by_name:
        log.warning("%s: %d paths are names alone, of files in folders below %s", path, lookup.by_name, file_index.root)
    name_patients(records, settings.header_ids)
    _check_given(path, names, records)
    read = "patient" in names or pattern.pattern is not None
    known = read or bool(records and all(record["known"] for record in records))
    patients = "known" if known else "unknown"
    if patients == "unknown":
        log.warning("%s: no patient column; expected one of %s", path, ", ".join(KNOWN["patient"]))
    tables = build_scan_tables(records, settings.results_name, columns.labels)
    classes = {"classes": columns.class_column} if columns.class_column else {}
    return ScanTable(
        file_index.root, *tables, quarantine, False, exclusive=True if classes else None, patients=patients,
        columns=names | classes, table_file=path, unread=columns.unread(table), pattern=pattern.text,
        decisions=[*columns.decisions, *filter(None, [pattern.decision])],
    )  # fmt: skip


def _pattern(settings: CohortSettings, table: pd.DataFrame, path: Path, columns: Columns) -> PatientNames:
    """Return what reads patients from file names: nothing where there is a patient column.

    Raises:
        UserError: the settings have a pattern, and the table a patient column.
    """
    if found := columns.names.get("patient"):
        if settings.patient_pattern not in (None, "auto"):
            raise UserError(
                f"{path}: cohort.patient_pattern and the column {found} both name patients; leave the pattern out, or "
                f"the column by cohort.ignore: [{found}]"
            )
        return PatientNames()
    return patient_names(settings, [text for text in table[columns.names["path"]].tolist() if text], columns.labels)


def _log_columns(path: Path, columns: Columns) -> None:
    """Log which column was taken as what, and keep what is not obvious as decisions."""
    where = f" (values of {columns.class_column})" if columns.class_column else ""
    log.info("%s: labels %s%s", path, ", ".join(columns.labels) or "none", where)
    if renamed := [f"{found} as {own}" for own, found in columns.names.items() if found.casefold() != own]:
        log.info("%s: read %s", path, ", ".join(renamed))
        columns.decisions.insert(0, f"Columns read by their names: {', '.join(renamed)}.")


def _names(text: str, found: str) -> bool:
    """Whether a cell has the file's own spelling, with or without the number of a B-scan."""
    return text.lstrip("/").endswith(found) or split_address(text)[0].lstrip("/").endswith(found)


def _check_given(path: Path, names: dict[str, str], records: list[dict[str, Any]]) -> None:
    """Normalize the table's split names, and check that no patient is in two splits.

    Raises:
        UserError: another word, an empty cell, or a patient in two splits.
    """
    if "split" not in names:
        return
    seen: dict[str, tuple[str, int]] = {}
    for record in records:
        word, row, patient = record["given_split"], record["row"], record["patient"]
        split = SPLIT_WORDS.get(word.lower())
        if split is None:
            raise UserError(f"{path}: row {row}: {names['split']} is {word!r}, expected train, val or test")
        record["given_split"] = split
        first, first_row = seen.setdefault(patient, (split, row))
        if first != split:
            raise UserError(
                f"{path}: patient {patient} is in two splits: {first} in row {first_row}, {split} in row {row}; "
                "expected one, so that no patient is tested on what was trained on; cohort.ignore: [split] makes a new "
                "split"
            )
