"""The VIP Cup's test scans, published without labels, and the submission file of predictions on them.

IEEE SPS Video and Image Processing Cup 2023, ophthalmic biomarker detection: 3,871 scans of 40 patients of the trial
RECOVERY, `RECOVERY/OCT/{patient}/{visit}/{eye}/{file}`.
"""

import logging
from pathlib import Path

import pandas as pd

from octdino.cohort.archives import open_archives
from octdino.cohort.file_index import FileIndex, clean_path
from octdino.cohort.olives.biomarker_tables import TableReader
from octdino.cohort.scan_table import ScanTable, build_scan_tables
from octdino.cohort.spreadsheet import find_column, parse_label, read_spreadsheet, require_column
from octdino.data.olives_names import PATH, VIP_BIOMARKERS, VIP_PATH
from octdino.errors import UserError

log = logging.getLogger("octdino.cohort")


def read_vip_test(root: Path, template: Path, cohort: str = "olives") -> ScanTable:
    """Read the test scans in the template's order: no labels, one patient per folder, all in the test split.

    Args:
        root: folder of the scans, unpacked or in archives.
        template: test_set_submission_template.csv.
        cohort: name in the manifest.

    Raises:
        UserError: the root, the table, its path column or all of the tree is missing.
    """
    file_index = FileIndex(root)
    open_archives(file_index)
    reader = TableReader(file_index)
    records = reader.read(read_spreadsheet(template, "template"), template, {}, has_patients=False)
    reader.check_folders()
    for record in records.values():
        trial, *_, patient, _, side, _ = record["id_path"].split("/")
        record |= {
            "patient": f"{trial}-{patient}",
            "eye": f"{trial}-{patient}-{side}",
            "trial": trial,
            "given_split": "test",
        }
    labels = list(VIP_BIOMARKERS.values())
    scans, truth = build_scan_tables(records.values(), cohort, labels)
    return ScanTable(
        file_index.root, scans.assign(split="test"), truth, reader.quarantine, True, source=file_index.source
    )


def write_submission(template: Path, predictions: pd.DataFrame, out: Path) -> None:
    """Write a submission: the template's rows in order, with B1 to B6 filled with 0 or 1.

    Args:
        template: test_set_submission_template.csv, or that of phase 2, whose first column is `File_Name`.
        predictions: `path`, which ends in the template's path, and one column per biomarker, under the names of
            `VIP_BIOMARKERS` or B1 to B6; more rows than the template's are allowed.
        out: the file to write.

    Raises:
        UserError: a column or a scan of the template is missing, a scan occurs twice, or a value is not 0 or 1.
    """
    table = read_spreadsheet(template, "template")
    named = require_column(table, template, VIP_PATH, PATH, "File_Name")
    given = {name: _column(predictions, label, name) for name, label in VIP_BIOMARKERS.items()}
    places = {clean_path(path): row for path, row in zip(table[named], table.index, strict=True)}
    depth = max(path.count("/") for path in places) + 1
    found: dict[str, tuple[int, ...]] = {}
    for path, *values in predictions[[_column(predictions, "path"), *given.values()]].itertuples(index=False):
        place = "/".join(clean_path(str(path)).split("/")[-depth:])
        if place not in places:
            continue
        if place in found:
            raise UserError(f"predictions: {path} is there twice")
        found[place] = tuple(_decision(value, str(path), name) for value, name in zip(values, given, strict=True))
    if missing := [place for place in places if place not in found]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(f"predictions: no row for {missing[0]}{more}; {template} names {len(places)} scans")
    filled = pd.DataFrame([found[place] for place in places], columns=list(given))
    filled.insert(0, named, table[named].to_numpy())
    part = out.with_name(f"{out.name}.part")
    filled.to_csv(part, index=False)
    part.replace(out)


def _column(predictions: pd.DataFrame, *names: str) -> str:
    found = find_column(predictions, *names)
    if found is None:
        raise UserError(f"predictions: no column {' or '.join(map(repr, names))}")
    return found


def _decision(value: object, path: str, name: str) -> int:
    try:
        decision = parse_label(str(value))
    except ValueError:
        decision = None
    if decision is None:
        raise UserError(f"predictions: {path}: {name} is {value}; expected 0 or 1: cut probabilities at a threshold")
    return decision
