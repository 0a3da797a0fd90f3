"""Reader of the parquet shards of gOLIVES/OLIVES_Dataset on Hugging Face: images and labels, without paths.

`disease_classification` has the sixteen biomarkers of every scan (empty where it was not graded) and the disease;
`biomarker_detection` has the VIP Cup's six, and its test scans, which have no patient. Visits and sides are not in
them. A fifth of the rows are duplicates within a patient; the ingest finds these by their pixels.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from octdino.cohort.olives.biomarker_tables import PATIENT_COLUMNS, read_values
from octdino.cohort.scan_table import Quarantine, RowRefused, ScanTable, build_scan_tables
from octdino.cohort.spreadsheet import cell_text, find_column, require_column
from octdino.data.olives_names import BIOMARKERS, VIP_BIOMARKERS
from octdino.errors import UserError
from octdino.scans.image_files import MAX_BYTES
from octdino.scans.sources import DAMAGED

IMAGE = "Image"
MAX_GROUP = 4 * MAX_BYTES  # of a row group, read as a whole; usual are 100 to 1,000 rows, a scan has 0.25 MB
MAX_ROWS = 500_000  # of a shard; some bytes can stand for any number of equal rows
TRIALS = {"DR": "PRIME", "DME": "TREX"}  # what the patients of the two trials have

log = logging.getLogger("octdino.cohort")


@dataclass(frozen=True)
class ShardSource:
    """Image source: `{shard below root}/{row}`, rows from 0. One row group is in memory at a time."""

    root: Path

    def __call__(self, path: str) -> bytes:
        shard, _, row = path.rpartition("/")
        group, begin = _group_of(self.root / shard, int(row))
        cell = _images_of_group(self.root / shard, group)[int(row) - begin].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise ValueError("no image in the row")
        return content


def read_shards(root: Path, shards: list[str], cohort: str) -> ScanTable:
    """Read each row of each shard as a scan; shards with the sixteen biomarkers first, so that their copy is kept.

    Raises:
        UserError: a shard is damaged or lacks a column.
    """
    tables = {shard: _read_labels(root / shard) for shard in shards}
    full = {shard: bool(find_column(table, BIOMARKERS[0])) for shard, table in tables.items()}
    labels = list(BIOMARKERS if any(full.values()) else VIP_BIOMARKERS.values())
    quarantine, records = Quarantine(), []
    for shard in sorted(shards, key=lambda shard: (not full[shard], shard)):
        kind = "disease" if full[shard] else "biomarker"
        for row, cell in enumerate(_cells(tables[shard], root / shard, full[shard])):
            named = f"{shard}/{row}"
            try:
                record = _record(cell, BIOMARKERS if full[shard] else tuple(VIP_BIOMARKERS.values()))
            except RowRefused as why:
                quarantine.add(named, row, why.reason, f"{shard} row {row}: {why.detail}")
                continue
            short = f"{kind}/{Path(shard).stem}/{row}"
            records.append(record | {"path": named, "table_path": named, "id_path": short, "row": row})
    log.info("%s: %d shards of %d scans, labels %s", root, len(shards), len(records), ", ".join(labels))
    return ScanTable(root, *build_scan_tables(records, cohort, labels), quarantine, True, source=ShardSource(root))


def _read_labels(path: Path) -> pd.DataFrame:
    """Read a shard's columns as text, without the images."""
    if not path.is_file():
        raise UserError(f"{path}: no regular file; expected a parquet file")
    try:
        schema = pq.read_schema(path)
        names = [name for name in schema.names if name != IMAGE]
        if (rows := pq.read_metadata(path).num_rows) > MAX_ROWS:
            raise UserError(f"{path}: {rows:,} rows; expected at most {MAX_ROWS:,}")
        table: pd.DataFrame = pq.read_table(path, columns=names).to_pandas(ignore_metadata=True).map(cell_text)
    except UserError:
        raise
    except (pa.ArrowException, *DAMAGED) as error:
        raise UserError(f"{path}: no whole parquet file: {error}; fetch it again") from None
    if IMAGE not in schema.names:
        raise UserError(f"{path}: no column {IMAGE!r}; it has {', '.join(schema.names)}")
    return table


def _cells(table: pd.DataFrame, path: Path, full: bool) -> Iterable[dict[str, str]]:
    """Yield the rows by octdino's column names."""
    labels = {name: name for name in BIOMARKERS} if full else {new: old for old, new in VIP_BIOMARKERS.items()}
    names = {ours: require_column(table, path, theirs) for ours, theirs in labels.items()}
    for ours, theirs in (
        *((name, name) for name in PATIENT_COLUMNS),
        ("slice", "Scan (n/49)"),
        ("disease", "Disease Label"),
    ):
        if found := find_column(table, theirs):
            names[ours] = found
    for cells in zip(*[table[name].tolist() for name in names.values()], strict=True):
        yield dict(zip(names, cells, strict=True))


def _record(cell: dict[str, str], labels: tuple[str, ...]) -> dict[str, Any]:
    if not cell.get("Patient_ID"):
        raise RowRefused("missing_patient", "Patient_ID is empty; without it the scan could be in two splits")
    record = read_values(cell, labels)
    record["trial"] = TRIALS.get(cell.get("disease", "").upper(), "") or _trial(record["patient"])
    return record | {"flags": "", "known": True, "given_split": ""}


def _trial(patient: str) -> str:
    """Return the trial by the published patient numbers: patients 57 to 96 are PRIME's, from 201 TREX's."""
    number = int(patient) if patient.isdecimal() else 0
    return "PRIME" if 57 <= number <= 96 else "TREX" if number > 200 else ""


@lru_cache(maxsize=128)
def _shard(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, memory_map=True)


@lru_cache(maxsize=1)
def _images_of_group(path: Path, group: int) -> Any:
    """Return the images of one row group: batches come in order, so a process reads each once.

    Raises:
        ValueError: the group's size in the metadata is larger than `MAX_GROUP`.
    """
    size = _shard(path).metadata.row_group(group).total_byte_size
    if size > MAX_GROUP:
        raise ValueError(f"a row group of {size:,} bytes; expected at most {MAX_GROUP:,}")
    return _shard(path).read_row_group(group, columns=[IMAGE]).column(IMAGE)


def _group_of(path: Path, row: int) -> tuple[int, int]:
    """Return the row group of a row, and its first row."""
    meta, begin = _shard(path).metadata, 0
    for group in range(meta.num_row_groups):
        if row < begin + meta.row_group(group).num_rows:
            return group, begin
        begin += meta.row_group(group).num_rows
    raise ValueError(f"no row {row} in {path}")
