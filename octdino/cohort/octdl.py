"""Reader of OCTDL: 2,064 B-scans of 820 patients with one of seven diagnoses, from its zip or an unpacked tree.

Kulyabin et al., OCTDL: Optical Coherence Tomography Dataset for Image-Based Deep Learning Methods, Scientific Data
2024, https://arxiv.org/abs/2312.08255; files: https://doi.org/10.17632/sncdhf53xc.4.

    OCTDL_labels.csv        file_name,disease,subcategory,condition,patient_id,eye,sex,year,image_width,image_hight
                            amd_1101816_1,AMD,late,MNV,1101816,OD,F,1941,882,322
    OCTDL/{disease}/{file_name}.jpg

`image_hight` is spelled so. `eye` is OD, OS, or 0 where it is unknown (1,616 rows), as are `sex` and `year`. One
patient has two diagnoses, the others one. The labels are the diagnoses; `subcategory` and `condition` are not read.

The counts and the columns are those of a public copy of the table with 2,064 rows. Not verified: whether version 4 of
the record has the same table, and the folders in OCTDL.zip; a scan is therefore found by the name of its class folder
and its own, in whichever folder these are.
"""

import logging
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from octdino.cohort.archives import open_archives
from octdino.cohort.file_index import FileIndex
from octdino.cohort.scan_table import Quarantine, RowRefused, ScanTable, build_scan_tables
from octdino.cohort.spreadsheet import find_column, parse_identifier, read_spreadsheet, require_column
from octdino.config.cohort import CohortSettings
from octdino.errors import UserError
from octdino.scans.preprocess import SUFFIXES

CLASSES = ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")
TABLE = "OCTDL_labels.csv"
EYES = {"OD": "OD", "OS": "OS", "0": "", "": ""}

log = logging.getLogger("octdino.cohort")


def read_octdl(settings: CohortSettings) -> ScanTable:
    """Read the scans in the order of the labels file; rows that cannot be used go to the quarantine.

    Raises:
        UserError: the root, the labels file, one of its columns or all of the images are missing, or an archive is
            damaged.
    """
    assert settings.root is not None, "the settings check it"
    file_index = FileIndex(settings.root)
    open_archives(file_index)
    path = settings.table or file_index.find_table("cohort.table", TABLE)
    table = read_spreadsheet(path, "cohort.table", file_index.content(path))
    names = {name: require_column(table, path, name) for name in ("file_name", "disease", "patient_id")}
    if eye := find_column(table, "eye"):
        names["eye"] = eye
    images = _images(file_index)
    if not images:
        raise UserError(f"{settings.root}: no image in a folder {', '.join(CLASSES)}; expected OCTDL/AMD/*.jpg, …")
    quarantine, records = Quarantine(), []
    taken: dict[str, int] = {}
    for row, *cells in zip(table.index.tolist(), *[table[name].tolist() for name in names.values()], strict=True):
        cell = dict(zip(names, cells, strict=True))
        try:
            record = _record(cell, images)
            if (first := taken.setdefault(record["path"], row)) != row:
                raise RowRefused("duplicate_path", f"named in row {first} already")
        except RowRefused as why:
            quarantine.add(cell["file_name"], row, why.reason, f"{path.name} row {row}: {why.detail}")
            continue
        records.append(record | {"row": row, "table_path": cell["file_name"]})
    if more := sum(map(len, images.values())) - len(taken):
        log.warning("%s: %d images that no row of %s uses", settings.root, more, path.name)
    tables = build_scan_tables(records, settings.results_name, list(CLASSES))
    return ScanTable(file_index.root, *tables, quarantine, False, exclusive=True, source=file_index.source)


def _images(file_index: FileIndex) -> dict[tuple[str, str], list[str]]:
    """Return the paths of images in class folders by class and name without suffix; files on disk hide archives."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for archived in (False, True):
        seen = set(found)
        for path in sorted(file_index.archived if archived else file_index.files - file_index.archived):
            parts = PurePosixPath(path)
            key = (parts.parent.name, parts.stem)
            if key[0] in CLASSES and parts.suffix.lower() in SUFFIXES and key not in seen:
                found[key].append(path)
    return found


def _record(cell: dict[str, str], images: dict[tuple[str, str], list[str]]) -> dict[str, Any]:
    """Return a row as a record.

    Raises:
        RowRefused: a cell is empty or not allowed, or its image is missing or ambiguous.
    """
    name = PurePosixPath(cell["file_name"])
    stem = name.stem if name.suffix.lower() in SUFFIXES else name.name
    if not stem:
        raise RowRefused("missing_path", "file_name is empty; expected the name of an image")
    if cell["disease"] not in CLASSES:
        raise RowRefused("bad_label", f"disease is {cell['disease']!r}; expected {', '.join(CLASSES)}")
    patient = parse_identifier(cell["patient_id"])
    if not patient:
        raise RowRefused("missing_patient", "patient_id is empty; without it the scan could be in two splits")
    side = EYES.get(cell.get("eye", "").upper())
    if side is None:
        raise RowRefused("bad_value", f"eye is {cell['eye']!r}; expected OD, OS or 0")
    paths = images.get((cell["disease"], stem), [])
    if len(paths) != 1:
        where = f"{cell['disease']}/{stem}.jpg"
        if not paths:
            raise RowRefused("missing_file", f"no file {where} below the root")
        raise RowRefused("bad_path", f"{where} may be {' or '.join(paths)}; expected one")
    return {
        "path": paths[0],
        "id_path": f"{cell['disease']}/{stem}",
        "patient": patient,
        "known": True,
        "eye": f"{patient}-{side}" if side else "",
        "laterality": side,
        "given_split": "",
        "truth": {label: int(label == cell["disease"]) for label in CLASSES},
    }
