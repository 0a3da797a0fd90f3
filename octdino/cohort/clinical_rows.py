"""Rows of clinical files: one record per B-scan with what the header says, and patients by running pseudonyms.

What identifies a patient in a header stays here: a record gets the pseudonym, the number of the visit and nothing else
of it. Only with `cohort.header_ids` a patient keeps the header's own id.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from octdino.cohort.file_index import MASKS, FileIndex
from octdino.cohort.natural_order import natural
from octdino.cohort.scan_table import Quarantine, RowRefused
from octdino.cohort.spreadsheet import parse_identifier
from octdino.scans.image_files import ImageError
from octdino.scans.volumes.registry import is_volume, open_volume, split_address
from octdino.scans.volumes.volume import SeriesInfo, Volume

HEADER = "header"  # key of a record until `name_patients`: what its header says

log = logging.getLogger("octdino.cohort")


class ClinicalFiles:
    """The clinical files below a cohort's root, each opened once."""

    def __init__(self, file_index: FileIndex) -> None:
        self._index = file_index
        self._opened: dict[str, Volume | ImageError] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._opened or is_volume(self._index.root / name)

    def open(self, name: str) -> Volume:
        """Return the file `name` below root.

        Raises:
            RowRefused: it is damaged, or holds no B-scans.
            UserError: the package that reads it is not installed.
        """
        if name not in self._opened:
            try:
                self._opened[name] = open_volume(self._index.root / name)
            except ImageError as error:
                self._opened[name] = error
        found = self._opened[name]
        if isinstance(found, ImageError):
            raise RowRefused("unreadable", str(found))
        return found

    def open_all(self, names: Iterable[str], quarantine: Quarantine) -> dict[str, Volume]:
        """Return the files that can be read, by name; the others go to the quarantine."""
        found = {}
        for name in names:
            try:
                found[name] = self.open(name)
            except RowRefused as why:
                quarantine.add(name, None, why.reason, why.detail)
        return found

    def parts(self, volumes: Iterable[Volume]) -> set[str]:
        """Return the names below root of the files that belong to volumes, their fundus images among them."""
        return {part.relative_to(self._index.root).as_posix() for volume in volumes for part in volume.parts}

    def resolve(self, text: str) -> tuple[str, int | None] | None:
        """Return file and B-scan of `path#N`; None if there is no such file, or no clinical one."""
        path, index = split_address(text)
        found = self._index.resolve(path) if index is not None else None
        return (found, index) if found is not None and found in self else None

    def records(self, name: str, index: int | None = None) -> list[dict[str, Any]]:
        """Return one record per B-scan of a file, or that of B-scan `index` alone.

        Raises:
            RowRefused: the file is damaged, or has no such B-scan.
        """
        volume = self.open(name)
        if index is not None and index >= len(volume.frames):
            raise RowRefused("missing_file", f"no B-scan {index}; the file has 0 to {len(volume.frames) - 1}")
        return [self._record(name, volume, n) for n in (range(len(volume.frames)) if index is None else [index])]

    def _record(self, name: str, volume: Volume, index: int) -> dict[str, Any]:
        frame, series = volume.frames[index], volume.series_of(index)
        address = f"{name}#{index}"
        mask = f"{MASKS}/{address}.png"
        return {
            "path": address,
            "table_path": address,
            "id_path": address,
            "laterality": frame.laterality or "",
            "slice": frame.slice,
            "cst": series.cst,
            "trial": series.device or "",
            "mask": mask if mask in self._index.files else "",
            "given_split": "",
            "truth": {},
            HEADER: (name, series),
        }


def name_patients(records: list[dict[str, Any]], header_ids: bool) -> None:
    """Name patient, eye and visit of each record that has a header and lacks them, in place.

    Pseudonyms count patients in the order of their first paths; visits count the dates of an eye. A file whose header
    names nobody is a patient of its own, `known` is then false.

    Args:
        header_ids: keep the header's own id where there is one.
    """
    by_path = sorted((record for record in records if HEADER in record), key=lambda record: natural(record["path"]))
    names: dict[str, str] = {}
    dates: dict[tuple[str, str], set[str]] = {}
    for record in by_path:
        file, series = record[HEADER]
        if "patient" not in record:
            key = series.patient or f"file {file}"
            pseudonym = names.setdefault(key, f"patient-{len(names) + 1:04d}")
            record["patient"] = parse_identifier(series.patient_id) if header_ids and series.patient_id else pseudonym
            record["known"] = series.patient is not None
        if not record.get("eye") and record["laterality"]:
            record["eye"] = f"{record['patient']}-{record['laterality']}"
        if series.visit:
            dates.setdefault(_eye(record), set()).add(series.visit)
    numbers = {eye: {date: str(n) for n, date in enumerate(sorted(days), 1)} for eye, days in dates.items()}
    for record in by_path:
        series = record.pop(HEADER)[1]
        if not record.get("visit") and series.visit:
            record["visit"] = numbers[_eye(record)][series.visit]


def identities(volume: Volume) -> set[str]:
    """Return the identities of a file's patients, to be compared and never shown."""
    series: Iterable[SeriesInfo] = volume.series
    return {one.patient for one in series if one.patient is not None}


def log_volumes(root: Path, volumes: dict[str, Volume], parts: set[str]) -> None:
    """Log how many files of each format were found, and what was left out beside them."""
    kinds: dict[str, int] = {}
    for volume in volumes.values():
        kinds[volume.kind] = kinds.get(volume.kind, 0) + 1
    scans = sum(len(volume.frames) for volume in volumes.values())
    log.info("%s: %s: %d B-scans", root, ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())), scans)
    if parts:
        named = sum(len(volume.frames) for volume in volumes.values() if volume.parts)
        log.info("%s: %d fundus images of these exports are left out", root, len(parts) - named)


def _eye(record: dict[str, Any]) -> tuple[str, str]:
    return str(record["patient"]), str(record.get("eye", ""))
