"""A user's table of scans: a CSV with a path column, whose rows name images, clinical files or B-scans in them."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.cohort.clinical_rows import ClinicalFiles, name_patients
from octdino.cohort.file_index import FileIndex, clean_path
from octdino.cohort.scan_table import Quarantine, RowRefused, ScanTable, build_scan_tables, check_labels
from octdino.cohort.spreadsheet import (
    find_column,
    parse_identifier,
    parse_label,
    parse_number,
    read_spreadsheet,
    require_column,
)
from octdino.config.cohort import CohortSettings
from octdino.data.schemas.csv_schemas import MANIFEST
from octdino.errors import UserError
from octdino.scans.volumes.registry import split_address

# Columns with a fixed meaning, and their alternative names.
KNOWN = {
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id"),
    "eye": ("eye", "eye_id"),
    "visit": ("visit", "visit_id"),
    "slice": ("slice",),
    "laterality": ("laterality",),
    "trial": ("trial", "site", "device"),
    "bcva": ("bcva",),
    "cst": ("cst",),
    "mask": ("mask",),
    "split": ("split",),
}
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
RANGES = {  # as the manifest has them: units are the user's own
    "slice": (0, 1e6),
    **{c.name: (c.low, c.high) for c in MANIFEST if c.low is not None and c.high is not None},
}

log = logging.getLogger("octdino.cohort")


def read_scan_table(settings: CohortSettings, file_index: FileIndex, clinical: ClinicalFiles, path: Path) -> ScanTable:
    """Read the table at `path`: each row is one scan, or all B-scans of a clinical file.

    Raises:
        UserError: no table, no path column, a named label is missing, or a patient is in two splits.
    """
    table = read_spreadsheet(path, "cohort.table")
    names = {"path": require_column(table, path, "path")}
    names |= {own: found for own, alike in KNOWN.items() if (found := find_column(table, *alike))}
    labels = _labels(settings, table, path, set(names.values()))
    log.info("%s: labels %s", path, ", ".join(labels) or "none")
    if renamed := [f"{found} as {own}" for own, found in names.items() if found.lower() != own]:
        log.info("%s: read %s", path, ", ".join(renamed))
    quarantine, records = Quarantine(), []
    taken: dict[str, int] = {}
    named = labels + [name for name in names.values() if name not in labels]
    for row, *cells in zip(table.index.tolist(), *[table[name].tolist() for name in named], strict=True):
        cell = dict(zip(named, cells, strict=True))
        text = cell[names["path"]]
        try:
            scans = _records(cell, names, labels, file_index, clinical)
            if twice := next((record["path"] for record in scans if record["path"] in taken), None):
                raise RowRefused("duplicate_path", f"named in row {taken[twice]} already")
        except RowRefused as why:
            quarantine.add(text, row, why.reason, f"{path.name} row {row}: {why.detail}")
            continue
        taken |= {record["path"]: row for record in scans}
        records += [record | {"row": row} for record in scans]
    name_patients(records, settings.header_ids)
    _check_given(path, names, records)
    known = "patient" in names or bool(records and all(record["known"] for record in records))
    patients = "known" if known else "unknown"
    if patients == "unknown":
        log.warning("%s: no patient column; expected one of %s", path, ", ".join(KNOWN["patient"]))
    tables = build_scan_tables(records, settings.results_name, labels)
    return ScanTable(file_index.root, *tables, quarantine, False, exclusive=None, patients=patients)


def _labels(settings: CohortSettings, table: pd.DataFrame, path: Path, known: set[str]) -> list[str]:
    """Return the label columns: those in cohort.labels, or all others that contain only 0, 1 and empty cells."""
    if settings.labels is not None:
        chosen = [require_column(table, path, name) for name in settings.labels]
        if clash := sorted(set(chosen) & known):
            raise UserError(f"cohort.labels: {', '.join(clash)}: a column of this name has a meaning of its own")
        return check_labels(chosen, "cohort.labels")
    labels, ignored = [], []
    for name in table.columns:
        if name in known:
            continue
        odd = [(row, text) for row, text in table[name].items() if not _is_label(text)]
        if not odd and (table[name] != "").any():
            labels.append(str(name))
        elif odd:
            ignored.append(f"{name} ({len(odd)} cells are neither 0, 1 nor empty; row {odd[0][0]}: {odd[0][1]!r})")
        else:
            ignored.append(f"{name} (empty)")
    if ignored:
        log.warning("%s: no label, ignored: %s", path, "; ".join(ignored))
    return check_labels(labels, str(path))


def _is_label(text: str) -> bool:
    try:
        parse_label(text)
    except ValueError:
        return False
    return True


def _records(
    cell: dict[str, str], names: dict[str, str], labels: list[str], file_index: FileIndex, clinical: ClinicalFiles
) -> list[dict[str, Any]]:
    """Check one row and return its scans: one, or all B-scans of a clinical file.

    What the row leaves empty is filled from the header.
    """
    text = cell[names["path"]]
    found, index = _resolve(text, file_index, clinical)
    record = _record(cell, names, labels, found, file_index)
    if index is None and found not in clinical:
        return [record | {"table_path": text}]
    frames = clinical.records(found, index)
    left = {"path", "id_path"} | ({"slice"} if index is None else set())  # a slice would be the same for all
    left |= set() if cell.get(names.get("mask", ""), "") else {"mask"}
    left |= set() if "patient" in names else {"patient", "known", "eye"}  # the eye's name begins with the patient's
    own = {key: value for key, value in record.items() if value not in (None, "") and key not in left}
    own |= {"table_path": text, "flags": record["flags"], "given_split": record["given_split"]}
    return [frame | own for frame in frames]


def _record(
    cell: dict[str, str], names: dict[str, str], labels: list[str], found: str, file_index: FileIndex
) -> dict[str, Any]:
    """Check one row and return it as a record of the file `found`."""
    text = cell[names["path"]]
    record: dict[str, Any] = {own: cell[name] for own, name in names.items() if own not in ("path", "split")}
    record |= {"path": found, "id_path": found, "flags": "" if _names(text, found) else "path_changed"}
    if "patient" in names and not record["patient"]:
        raise RowRefused("missing_patient", f"{names['patient']} is empty; the scan could be in two splits")
    record["known"] = "patient" in names
    record["patient"] = parse_identifier(record.get("patient", found))
    if eye := record.get("eye", ""):
        record["laterality"] = record.get("laterality") or (eye.upper() if eye.upper() in ("OD", "OS") else "")
        record["eye"] = f"{record['patient']}-{parse_identifier(eye)}"
    if not record.get("mask"):
        record["mask"] = file_index.mask_of(found)
    for own, bounds in RANGES.items():
        try:
            record[own] = parse_number(record.get(own, ""), *bounds)
        except ValueError as error:
            raise RowRefused("bad_value", f"{names[own]}: {error}") from None
    if record["slice"] is not None and record["slice"] % 1:
        raise RowRefused("bad_value", f"{names['slice']}: {record['slice']:g}, expected a whole number")
    record["truth"] = {}
    for name in labels:
        try:
            record["truth"][name] = parse_label(cell[name])
        except ValueError as error:
            raise RowRefused("bad_label", f"{name}: {error}") from None
    record["given_split"] = cell.get(names.get("split", ""), "")
    return record


def _names(text: str, found: str) -> bool:
    """Whether a cell has the file's own spelling, with or without the number of a B-scan."""
    return text.lstrip("/").endswith(found) or split_address(text)[0].lstrip("/").endswith(found)


def _resolve(text: str, file_index: FileIndex, clinical: ClinicalFiles) -> tuple[str, int | None]:
    """Return the file below root that a relative or absolute path names, and the B-scan of `path#N`."""
    if not text:
        raise RowRefused("missing_path", "the path is empty; expected the path of a scan below root")
    if Path(text).is_absolute() and Path(text).is_relative_to(file_index.root.absolute()):
        text = Path(text).relative_to(file_index.root.absolute()).as_posix()
    try:
        path = clean_path(text)
        found = file_index.resolve(path)
        if found is None and (frame := clinical.resolve(path)):
            return frame
    except (ValueError, LookupError) as error:
        raise RowRefused("bad_path", str(error)) from None
    if found is None:
        raise RowRefused("missing_file", f"no file {text} below the root")
    return found, None


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
                "expected one, so that no patient is tested on what was trained on"
            )
