"""Reader of a user's own scans: a CSV with a path column, or class folders."""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.cohort.file_index import MASKS, FileIndex, clean_path
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
from octdino.scans.preprocess import SUFFIXES

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


def read_folder(settings: CohortSettings) -> ScanTable:
    """Read the rows of the table, or every image below root with its folder as the class.

    Raises:
        UserError: the root, the table, its path column or a named label is missing, or there is nothing to classify.
    """
    assert settings.root is not None, "the settings check it"
    file_index = FileIndex(settings.root)
    table = _find_csv(settings, file_index)
    return _from_classes(settings, file_index) if table is None else _from_table(settings, file_index, table)


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


def _from_table(settings: CohortSettings, file_index: FileIndex, path: Path) -> ScanTable:
    table = read_spreadsheet(path, "cohort.table")
    names = {"path": require_column(table, path, "path")}
    names |= {own: found for own, alike in KNOWN.items() if (found := find_column(table, *alike))}
    labels = _labels(settings, table, path, set(names.values()))
    log.info("%s: labels %s", path, ", ".join(labels) or "none")
    if renamed := [f"{found} as {own}" for own, found in names.items() if found.lower() != own]:
        log.info("%s: read %s", path, ", ".join(renamed))
    patients = "known" if "patient" in names else "unknown"
    if patients == "unknown":
        log.warning("%s: no patient column; expected one of %s", path, ", ".join(KNOWN["patient"]))
    quarantine, records = Quarantine(), []
    taken: dict[str, int] = {}
    named = labels + [name for name in names.values() if name not in labels]
    for row, *cells in zip(table.index.tolist(), *[table[name].tolist() for name in named], strict=True):
        cell = dict(zip(named, cells, strict=True))
        text = cell[names["path"]]
        try:
            record = _record(cell, names, labels, file_index)
            if (first := taken.setdefault(record["path"], row)) != row:
                raise RowRefused("duplicate_path", f"named in row {first} already")
        except RowRefused as why:
            quarantine.add(text, row, why.reason, f"{path.name} row {row}: {why.detail}")
            continue
        records.append(record | {"row": row, "table_path": text})
    _check_given(path, names, records)
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


def _record(cell: dict[str, str], names: dict[str, str], labels: list[str], file_index: FileIndex) -> dict[str, Any]:
    """Check one row and return it as a record."""
    text = cell[names["path"]]
    found = _resolve(text, file_index)
    record: dict[str, Any] = {own: cell[name] for own, name in names.items() if own not in ("path", "split")}
    record |= {"path": found, "id_path": found, "flags": "" if text.lstrip("/").endswith(found) else "path_changed"}
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


def _resolve(text: str, file_index: FileIndex) -> str:
    """Return the file below root that a relative or absolute path names."""
    if not text:
        raise RowRefused("missing_path", "the path is empty; expected the path of a scan below root")
    if Path(text).is_absolute() and Path(text).is_relative_to(file_index.root.absolute()):
        text = Path(text).relative_to(file_index.root.absolute()).as_posix()
    try:
        found = file_index.resolve(clean_path(text))
    except (ValueError, LookupError) as error:
        raise RowRefused("bad_path", str(error)) from None
    if found is None:
        raise RowRefused("missing_file", f"no file {text} below the root")
    return found


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


def _from_classes(settings: CohortSettings, file_index: FileIndex) -> ScanTable:
    """Read class folders: `{class}/…/file`, or `{train|val|test}/{class}/…/file`; other files have no label."""
    images = sorted((f for f in file_index.files if not f.startswith(f"{MASKS}/")), key=_natural)
    others = Counter(Path(f).suffix.lower() or "no suffix" for f in images if not _is_image(f))
    images = [f for f in images if _is_image(f)]
    if others:
        log.info("%s: no images, ignored: %s", file_index.root, ", ".join(f"{n} {s}" for s, n in others.most_common()))
    if not images:
        raise UserError(f"{file_index.root}: neither a table with a path column nor an image; expected one of them")
    tops = {f.split("/")[0] for f in images if "/" in f}
    split = bool(tops) and all(top.lower() in SPLIT_WORDS for top in tops)
    folders = [f.split("/")[1:-1] if split else f.split("/")[:-1] for f in images]
    classes = sorted({steps[0] for steps in folders if steps}, key=_natural)
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        raise UserError(
            f"{file_index.root}: class folders: {found}; expected two or more, or a table with a path column"
        )
    check_labels(classes, f"{file_index.root}: class folders")
    if settings.labels is not None and set(settings.labels) != set(classes):
        raise UserError(f"cohort.labels: {', '.join(settings.labels)}; the class folders are {', '.join(classes)}")
    log.warning("%s: no table with a patient column, so patients are unknown", file_index.root)
    records = [
        {"path": f, "table_path": f, "id_path": f, "patient": f, "known": False, "mask": file_index.mask_of(f)}
        | {"given_split": SPLIT_WORDS[f.split("/")[0].lower()] if split and "/" in f else ""}
        | {"truth": {name: int(name == steps[0]) for name in classes} if steps else {}}
        for f, steps in zip(images, folders, strict=True)
    ]
    tables = build_scan_tables(records, settings.results_name, classes)
    return ScanTable(file_index.root, *tables, Quarantine(), False, exclusive=True, patients="unknown")


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in SUFFIXES


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
