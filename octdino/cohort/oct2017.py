"""Reader of OCT2017: B-scans with one of four classes, of 4,686 + 633 patients, from its zip or an unpacked tree.

Kermany et al., Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning, Cell 2018,
https://www.cell.com/cell/fulltext/S0092-8674(18)30154-5; files: https://doi.org/10.17632/rscbjbr9sj.3, CC BY 4.0.

    {base}/{train|val|test}/{CLASS}/{CLASS}-{patient}-{number}.jpeg        CNV-1016042-1.jpeg

| form | base | scans |
|---|---|---|
| version 3, ZhangLabData.zip, 8.4 GB | CellData/OCT | 108,309 train, 1,000 test (the paper counts 108,312) |
| version 2, OCT2017.tar.gz, 5,793,183,169 bytes | OCT2017 | 83,484 train, 1,000 test |
| copies of version 2 elsewhere | OCT2017 | 83,484 train, 32 val, 968 test |

The zip is read in place. The tar.gz, which gives no access to single files, must be unpacked by hand: only archives
whose checksum is known are unpacked by octdino. Both contain macOS's `._*`, `.DS_Store` or `__MACOSX` beside the scans,
which are skipped. ZhangLabData.zip holds chest X-rays in the same layout and under the same class name (CellData/
chest_xray/train/NORMAL/NORMAL-…-0001.jpeg), so a base counts only if it has all four classes.

Patients: the number in the file name, whatever the class, so that a patient with scans in two classes is one patient.
The publishers call it randomized; nobody else can verify that two numbers are two patients.

Sources disagree on how many patients of the published training set are tested, too: 3,663 training scans of version 3
(https://tvst.arvojournals.org/article.aspx?articleid=2778252); 91 % of the test scans of version 2 and none of version
3 (a public audit of the file names). Not verified here, for want of the archives: these counts, sizes and layouts,
which are those of public listings and programs. Protocol `published` counts what is on disk, see
`octdino.cohort.published_split`.
"""

import logging
import re
from collections import defaultdict
from typing import Any

from octdino.cohort.archives import open_archives
from octdino.cohort.file_index import FileIndex
from octdino.cohort.scan_table import Quarantine, RowRefused, ScanTable, build_scan_tables
from octdino.config.cohort import CohortSettings
from octdino.errors import UserError

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
SPLITS = {"train": "train", "val": "train", "test": "test"}  # 32 scans are too few to choose anything
LAYOUT = "{train,test}/{CNV,DME,DRUSEN,NORMAL}/{class}-{patient}-{number}.jpeg"
TREE = re.compile(r"((?:.*/)?)(?:train|val|test)/([^/]+)/[^/]+")
SCAN = re.compile(r"(?:train|val|test)/([^/]+)/([A-Z]+)-([0-9]+)-[0-9]+\.(?:jpe?g|JPE?G)")

log = logging.getLogger("octdino.cohort")


def read_oct2017(settings: CohortSettings) -> ScanTable:
    """Read the scans in the order split, class, patient, number; files with another name go to the quarantine.

    Raises:
        UserError: the root is missing or holds no such tree, or several, or an archive is damaged.
    """
    assert settings.root is not None, "the settings check it"
    file_index = FileIndex(settings.root)
    open_archives(file_index)
    base = _find_base(file_index)
    published = settings.split.protocol == "published"
    records: list[dict[str, Any]] = []
    quarantine = Quarantine()
    for path in sorted(file_index.files, key=_in_order):
        below = path.removeprefix(base)
        split = below.split("/")[0]
        if not path.startswith(base) or split not in SPLITS:
            continue
        try:
            record = _record(path, below)
        except RowRefused as why:
            quarantine.add(path, None, why.reason, why.detail)
            continue
        records.append(record | {"given_split": SPLITS[split] if published else ""})
    if published and "test" not in {record["given_split"] for record in records}:
        raise UserError(
            f"{settings.root / base}: no scan in test; cohort.split.protocol published expects the published test set"
        )
    log.info("%s: %d scans", settings.root / base, len(records))
    tables = build_scan_tables(records, settings.results_name, list(CLASSES))
    return ScanTable(file_index.root, *tables, quarantine, False, exclusive=True, source=file_index.source)


def _find_base(file_index: FileIndex) -> str:
    """Return the folder that holds train and test, below root with a final slash or empty; unpacked trees come first.

    Raises:
        UserError: there is none, or several.
    """
    for files in (file_index.files - file_index.archived, file_index.archived):
        classes: dict[str, set[str]] = defaultdict(set)
        for path in files:
            if match := TREE.fullmatch(path):
                classes[match[1]].add(match[2])
        found = sorted(base for base, names in classes.items() if names >= set(CLASSES))
        if len(found) > 1:
            trees = ", ".join(str(file_index.root / base) for base in found)
            raise UserError(f"{file_index.root}: several trees of OCT2017: {trees}; name one by cohort.root")
        if found:
            return found[0]
    if packed := sorted(file for file in file_index.files if file.endswith((".tar.gz", ".tgz"))):
        archive = file_index.root / packed[0]
        raise UserError(f"{archive}: not unpacked; run tar -xzf {archive} -C {archive.parent}, or fetch oct2017's zip")
    raise UserError(f"{file_index.root}: no tree of OCT2017; expected {LAYOUT} in any folder, or ZhangLabData.zip")


def _record(path: str, below: str) -> dict[str, Any]:
    """Return the record of a file; `below` is its path below the folder that holds train and test.

    Raises:
        RowRefused: its folder or its name is not of the published form, or they name two classes.
    """
    match = SCAN.fullmatch(below)
    if not match or match[1] not in CLASSES:
        raise RowRefused("bad_path", f"{below}; expected {LAYOUT}")
    folder, name, patient = match.groups()
    if name != folder:
        raise RowRefused("bad_path", f"the name says {name}, the folder {folder}; expected one class")
    return {
        "path": path,
        "table_path": path,
        "id_path": below,
        "patient": patient,
        "known": True,
        "truth": {label: int(label == folder) for label in CLASSES},
    }


def _in_order(path: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers in paths by value."""
    parts = re.split(r"([0-9]+)", path)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
