"""ScanTable, which every cohort reader returns to the ingest: scans, ground-truth labels, and the quarantine."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE, REASONS, label_fault
from octdino.errors import UserError
from octdino.scans.sources import FolderSource, ImageSource


@dataclass
class ScanTable:
    """The scans of a cohort as its tables or folders list them, before any image is decoded.

    Attributes:
        root: paths are below it.
        scans: one row per scan in table order: the manifest's columns, of which group, split and pixel_hash are still
            empty, and `table_path` (the path as the table has it), `row` (of the table), `known` (whether the patient
            is known), `given_split` (the split that the table has, or empty).
        truth: ground-truth labels of the same scans as Int64, one column per label. Separate from `scans` because a
            label may have the name of one of its columns.
        quarantine: refused rows.
        one_size: whether scans of another size than the most frequent one are refused.
        exclusive: whether each labeled scan has exactly one positive label; None: decided by the labels.
        patients: known, unknown (the files do not name them) or none (images without patients); see
            `octdino.data.sampling_units`.
        source: maps a path to its image; the file below root by default.
        unlabeled: whether it has no labels on purpose, for pretraining and prediction.
        columns: of a user's table, the column by meaning (path, patient, classes, …).
        table_file: the user's table, if there is one.
        unread: columns of it that were not read.
        layout: of a user's folders, what they are: classes, classes-patients, patients or none; empty with a table.
        pattern: by which patients were read from file names; empty where they were not.
        decisions: what was decided without the user, as sentences for the data card.
    """

    root: Path
    scans: pd.DataFrame
    truth: pd.DataFrame
    quarantine: "Quarantine"
    one_size: bool
    exclusive: bool | None = False
    patients: str = "known"
    source: ImageSource | None = None
    unlabeled: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    table_file: Path | None = None
    unread: list[str] = field(default_factory=list)
    layout: str = ""
    pattern: str = ""
    decisions: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The label columns, in order."""
        return [str(name) for name in self.truth.columns]

    def image_source(self) -> ImageSource:
        """The source that maps a path to its image."""
        return self.source or FolderSource(self.root)


class RowRefused(Exception):  # noqa: N818  it is an outcome, not an error
    """Raised when a table row is refused: it goes to the quarantine with this reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass
class Quarantine:
    """The refused rows, each with a reason: the content of quarantine.csv."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, path: str, row: int | None, reason: str, detail: str) -> None:
        """Append a row; `path` as the table has it, `row` of the table if there is one, `reason` a code of REASONS."""
        assert reason in REASONS, reason
        self.rows.append({"path": path, "row": row, "reason": reason, "detail": detail})

    def table(self) -> pd.DataFrame:
        """The rows as a table with the columns of quarantine.csv."""
        return pd.DataFrame(self.rows, columns=[c.name for c in QUARANTINE])


def build_scan_tables(
    records: Iterable[dict[str, Any]], cohort: str, labels: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """ScanTable.scans and ScanTable.truth from one record per scan.

    What a record lacks is empty; its `id_path` becomes the scan_id, and `truth` holds its labels by name.
    """
    records = list(records)
    table = pd.DataFrame(records, columns=[*MANIFEST.names, "table_path", "row", "known", "given_split", "id_path"])
    truth = pd.DataFrame([record.get("truth", {}) for record in records], columns=labels, index=table.index)
    table["cohort"] = cohort
    for column in MANIFEST:
        if column.dtype == "string":
            table[column.name] = table[column.name].astype("string").fillna("")
    types: dict[str, Any] = {c.name: c.dtype for c in MANIFEST}
    table = table.astype(types | {"table_path": "string", "row": "Int64", "known": "bool", "given_split": "string"})
    table["scan_id"] = scan_ids(cohort, table["id_path"])
    return table.drop(columns="id_path"), truth.astype("Int64")


def check_labels(labels: list[str], where: str) -> list[str]:
    """Return the labels after checking that their names are allowed and unique.

    Args:
        where: the table or folder that they are from, for messages.

    Raises:
        UserError: a label's name is reserved, or occurs twice.
    """
    for name in labels:
        if fault := label_fault(name):
            raise UserError(f"{where}: label {name!r} {fault}; rename it, or leave it out of cohort.labels")
        if labels.count(name) > 1:
            raise UserError(f"{where}: label {name!r} occurs twice")
    return labels


def scan_ids(cohort: str, paths: Iterable[str]) -> list[str]:
    """Return unique scan ids that are safe in file names and as far as possible independent of the other scans."""
    paths = list(paths)
    short = [_safe(f"{cohort}-{re.sub(r'[.][A-Za-z0-9]+$', '', path.strip(chr(47)))}") for path in paths]
    folded = pd.Series([name.casefold() for name in short], dtype="object")
    clash = folded.duplicated(keep=False) | (folded.str.len() > 120)
    return [
        f"{name[:100]}-{hashlib.sha256(path.encode()).hexdigest()[:10]}" if bad else name
        for name, path, bad in zip(short, paths, clash, strict=True)
    ]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text.replace("/", "-").replace("\\", "-"))
