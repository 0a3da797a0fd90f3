"""What every cohort's reader hands to the ingest: the scans that its tables name, and what it refused."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.cohort.sources import Files, Source
from octdino.tables import MANIFEST, QUARANTINE, REASONS


@dataclass
class Rows:
    """The scans of a cohort before a pixel is read.

    Attributes:
        root: paths are below it.
        scans: one row a scan in table order: the manifest's columns but scan_id, group and split, the labels as Int64,
            and `named` (the path as the table has it), `row` (of the table), `known` (whether the patient is known and
            not just the scan itself), `given` (the split that the user gave, or empty). `split` is still empty.
        refused: quarantine rows.
        labels: the label columns, in order.
        one_size: whether scans of another size than the cohort's commonest are refused.
        exclusive: whether each labelled scan has exactly one positive label; None: the labels themselves say.
        source: what gives the picture of a path; the file below root if not given.
    """

    root: Path
    scans: pd.DataFrame
    refused: "Refused"
    labels: list[str]
    one_size: bool
    exclusive: bool | None = False
    source: Source | None = None

    def pictures(self) -> Source:
        """What gives the picture of a path."""
        return self.source or Files(self.root)


class Refuse(Exception):  # noqa: N818  it is an outcome, not an error
    """Raised while a row is read: it goes to the quarantine with this reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass
class Refused:
    """Collects quarantine rows."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, path: str, row: int | None, reason: str, detail: str) -> None:
        """One more; `path` as the table names it, `row` of the table if there is one, `reason` a code of REASONS."""
        assert reason in REASONS, reason
        self.rows.append({"path": path, "row": row, "reason": reason, "detail": detail})

    def table(self) -> pd.DataFrame:
        """quarantine.csv."""
        return pd.DataFrame(self.rows, columns=[c.name for c in QUARANTINE])


def scan_table(records: Iterable[dict[str, Any]], cohort: str, labels: list[str]) -> pd.DataFrame:
    """Rows.scans from one record a scan; what a record lacks is empty; its `short` path makes the scan_id."""
    own = ["named", "row", "known", "given", "short"]
    table = pd.DataFrame(list(records), columns=[c.name for c in MANIFEST] + labels + own)
    table["cohort"] = cohort
    for column in MANIFEST:
        if column.dtype == "string":
            table[column.name] = table[column.name].astype("string").fillna("")
    types: dict[str, Any] = {c.name: c.dtype for c in MANIFEST} | dict.fromkeys(labels, "Int64")
    table = table.astype(types | {"named": "string", "row": "Int64", "known": "bool", "given": "string"})
    table["scan_id"] = scan_ids(cohort, table["short"])
    return table.drop(columns="short")


def scan_ids(cohort: str, paths: Iterable[str]) -> list[str]:
    """Unique names that are safe in file names and do not depend on which other scans there are, as far as possible."""
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
