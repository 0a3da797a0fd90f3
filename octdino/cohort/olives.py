"""The published form of OLIVES: an image tree and two tables.

Prabhushankar et al., OLIVES Dataset: Ophthalmic Labels for Investigating Visual Eye Semantics, NeurIPS 2022 Datasets
and Benchmarks; https://doi.org/10.5281/zenodo.7105232. The trees hold both eyes and derived pictures; only the scans
that the tables name are the cohort, so the tables drive and nothing is globbed.
"""

import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from octdino.cohort.rows import Refuse, Refused, Rows, scan_table
from octdino.cohort.sheets import ROW, column, find_column, identifier, label_value, number, read_sheet
from octdino.cohort.tree import Tree, clean_path
from octdino.config.cohort import CohortSettings
from octdino.errors import UserError

LABEL_TABLE = "Biomarker_Clinical_Data_Images.csv"
CLINICAL_TABLE = "Clinical_Data_Images.xlsx"
PATH = "Path (Trial/Arm/Folder/Visit/Eye/Image Name)"
BIOMARKERS = (
    "Atrophy / thinning of retinal layers",
    "Disruption of EZ",
    "DRIL",
    "IR hemorrhages",
    "IR HRF",
    "Partially attached vitreous face",
    "Fully attached vitreous face",
    "Preretinal tissue/hemorrhage",
    "Vitreous debris",
    "VMT",
    "DRT/ME",
    "Fluid (IRF)",
    "Fluid (SRF)",
    "Disruption of RPE",
    "PED (serous)",
    "SHRM",
)
BCVA = (0.0, 100.0)  # ETDRS letters
CST = (50.0, 2000.0)  # µm

log = logging.getLogger("octdino.cohort")


def read_olives(settings: CohortSettings) -> Rows:
    """Labelled scans in the order of the biomarker table, then the others in the order of the clinical table.

    Raises:
        UserError: the root, a table or a column is missing.
    """
    assert settings.root is not None, "the command checks it"
    tree = Tree(settings.root)
    label_table = settings.table or tree.find_table(LABEL_TABLE, "cohort.table")
    clinical_table = settings.clinical or tree.find_table(CLINICAL_TABLE, "cohort.clinical")
    reader = _Reader(tree)
    labelled = reader.read(label_table, "cohort.table", BIOMARKERS)
    clinical = reader.read(clinical_table, "cohort.clinical", ())
    reader.check_folders()
    _flag_laterality(labelled.values(), clinical.values())
    for path, record in labelled.items():
        if path in clinical:
            _complete(record, clinical[path], reader.refused)
    clash = {path for path, record in labelled.items() if record["patient"] is None}
    records = [r for path, r in labelled.items() if path not in clash]
    records += [r for path, r in clinical.items() if path not in labelled]
    log.info("%s and %s name %d scans, %d labelled", label_table, clinical_table, len(records), len(labelled))
    return Rows(tree.root, scan_table(records, settings.name, list(BIOMARKERS)), reader.refused, list(BIOMARKERS), True)


class _Reader:
    """Rows of the tables as records by the file that they mean."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.refused = Refused()
        self._gone: set[str] = set()  # paths refused by an earlier table: a scan is in the quarantine once
        self._folders: dict[str, str | None] = {}  # first step of a path: the folder that it means

    def read(self, path: Path, key: str, labels: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """The accepted rows of one table; `key` is the setting that names it."""
        table = read_sheet(path, key)
        names = {
            "path": column(table, path, PATH, "File_Path", "Path"),
            **{name: column(table, path, name) for name in ("Patient_ID", "Eye_ID", "BCVA", "CST", *labels)},
        }
        if scan := find_column(table, "Scan (n/49)"):
            names["slice"] = scan
        records: dict[str, dict[str, Any]] = {}
        rows: dict[str, int] = {}
        gone: set[str] = set()
        columns = [table[name].tolist() for name in names.values()]
        for row, *cells in zip(table[ROW].tolist(), *columns, strict=True):
            cell = dict(zip(names, cells, strict=True))
            try:
                record = self._record(cell, labels)
                if record is None:
                    continue
                if (first := rows.setdefault(record["path"], row)) != row:
                    raise Refuse("duplicate_path", f"named in row {first} of {path.name} already")
            except Refuse as why:
                self.refused.add(cell["path"], row, why.reason, f"{path.name} row {row}: {why.detail}")
                gone.add(_key(cell["path"]))
                continue
            record |= {"row": row, "named": cell["path"], "known": True, "given": ""}
            records[record["path"]] = record
        self._gone |= gone - {_key(record["named"]) for record in records.values()}
        return records

    def _record(self, cell: dict[str, str], labels: tuple[str, ...]) -> dict[str, Any] | None:
        """One row, checked; None if an earlier table's row of this path was refused."""
        if not cell["path"]:
            raise Refuse("missing_path", "the path is empty; expected the path of a scan")
        if _key(cell["path"]) in self._gone:
            return None
        clean, place = _place(cell["path"])
        found = self._resolve(clean)
        if not cell["Patient_ID"]:
            raise Refuse("missing_patient", "Patient_ID is empty; without it the scan could be on two sides")
        record: dict[str, Any] = place | {"path": found, "short": clean}
        record["patient"], record["eye"] = identifier(cell["Patient_ID"]), identifier(cell["Eye_ID"])
        record["flags"] = "" if found.endswith(cell["path"].lstrip("/")) else "path_changed"
        record["mask"] = self.tree.mask_of(found, found[: -len(clean)])
        for name in labels:
            try:
                record[name] = label_value(cell[name])
            except ValueError as error:
                raise Refuse("bad_label", f"{name}: {error}") from None
        for name, bounds in (("BCVA", BCVA), ("CST", CST), ("slice", (1, 10_000))):
            try:
                value = number(cell.get(name, ""), *bounds)
            except ValueError as error:
                raise Refuse("bad_value", f"{name}: {error}") from None
            record[name.lower()] = record.get("slice") if name == "slice" and value is None else value
        return record

    def _resolve(self, clean: str) -> str:
        """The file below root that a clean path means, wherever the tree lies."""
        first, _, rest = clean.partition("/")
        if first not in self._folders:
            self._folders[first] = self.tree.find_folder(first)
        folder = self._folders[first]
        if folder is None:
            raise Refuse("missing_file", f"no folder {first!r} below the root")
        try:
            found = self.tree.resolve(f"{folder}/{rest}")
        except LookupError as error:
            raise Refuse("bad_path", str(error)) from None
        if found is None:
            raise Refuse("missing_file", f"no file {folder}/{rest} below the root")
        return found

    def check_folders(self) -> None:
        """All rows refused for want of a tree is a wrong root, not a cohort with bad rows.

        Raises:
            UserError: none of the tables' folders lies below root.
        """
        if self._folders and not any(self._folders.values()):
            names = " or ".join(repr(name) for name in sorted(self._folders)[:4])
            raise UserError(f"{self.tree.root}: no folder {names} below it; the tables' paths begin with these")
        for name, folder in self._folders.items():
            if folder is None:
                log.warning("no folder %r below %s: its scans are refused", name, self.tree.root)


def _key(path: str) -> str:
    return path.strip().replace("\\", "/").strip("/").casefold()


def _place(path: str) -> tuple[str, dict[str, Any]]:
    """The clean path, and what it says: `{trial}/…/{visit}/{OD|OS}/{file}`; the name's last number counts from 0."""
    try:
        clean = clean_path(path)
    except ValueError as error:
        raise Refuse("bad_path", str(error)) from None
    parts = clean.split("/")
    if len(parts) < 4 or parts[-2].upper() not in ("OD", "OS"):
        raise Refuse("bad_path", f"{path}; expected {{trial}}/…/{{visit}}/{{OD or OS}}/{{file}}")
    numbers = re.findall(r"\d+", parts[-1].rsplit(".", 1)[0])
    trial = next((name for name in ("PRIME", "TREX") if name in parts[0].upper()), parts[0])
    place = {"trial": trial, "visit": parts[-3], "laterality": parts[-2].upper()}
    return clean, place | {"slice": int(numbers[-1]) + 1 if numbers else None}


def _complete(record: dict[str, Any], clinical: dict[str, Any], refused: Refused) -> None:
    """Fill a labelled scan's clinical values from the clinical table, which is the wider one; say where they differ."""
    if record["patient"] != clinical["patient"]:
        detail = f"Patient_ID {record['patient']} in row {record['row']} of the biomarker table, "
        detail += f"{clinical['patient']} in row {clinical['row']} of the clinical table"
        refused.add(record["named"], record["row"], "missing_patient", detail)
        record["patient"] = None
        return
    for name in ("bcva", "cst", "eye"):
        if clinical[name] in (None, ""):
            continue
        if record[name] not in (None, "", clinical[name]):
            _flag(record, "table_clash")
        record[name] = clinical[name]


def _flag_laterality(labelled: Any, clinical: Any) -> None:
    """Flag labelled scans whose eye lies on another side in the clinical table: 98 scans of 02-016 in the real one."""
    sides: dict[str, set[str]] = defaultdict(set)
    for record in clinical:
        sides[record["eye"]].add(record["laterality"])
    for record in labelled:
        if record["eye"] and record["eye"] in sides and record["laterality"] not in sides[record["eye"]]:
            _flag(record, "laterality_clash")


def _flag(record: dict[str, Any], flag: str) -> None:
    if flag not in record["flags"].split():
        record["flags"] = f"{record['flags']} {flag}".strip()
