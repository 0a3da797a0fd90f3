"""What the arguments of predict, embed and neighbors name: files, folders, patterns, tables, and a cohort's store."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_csv
from octdino.errors import UserError
from octdino.inference.scan_inputs import ScanInput, ScanInputs
from octdino.scans.image_files import ImageError
from octdino.scans.preprocess import SUFFIXES
from octdino.scans.volumes.registry import OPENERS, is_volume, open_volume, split_address
from octdino.scans.volumes.volume import Volume

log = logging.getLogger("octdino.inference")

COLUMNS = {"path": ("path", "file", "filename", "image"), "patient": ("patient", "patient_id"), "eye": ("eye",)}
Named = tuple[str, str, str]  # file, patient, eye


def list_inputs(texts: Iterable[str]) -> ScanInputs:
    """Return the scans that the arguments of a command name, each file once, folders in the order of names.

    Args:
        texts: paths of images, clinical files (all B-scans) or single B-scans (path#N), folders (with all below them),
            CSV tables with a column `path`, patterns with * and ?, or one scans.h5.

    Raises:
        UserError: an argument names nothing, a table has no path column, or there is no scan.
    """
    texts = list(texts)
    stores = [text for text in texts if text.endswith(".h5")]
    if stores:
        if len(texts) > 1:
            raise UserError(f"{stores[0]}: a store with other inputs; expected it alone")
        return _of_store(Path(stores[0]))
    listing = _Listing()
    for text in texts:
        for named in _files(text):
            listing.add(*named)
    if not listing.found.scans and not listing.found.refused:
        kinds = ", ".join(sorted(SUFFIXES | set(OPENERS)))
        raise UserError(f"{' '.join(texts)[:200]}: no scan; expected {kinds}")
    return listing.found


class _Listing:
    """The scans that were named so far."""

    def __init__(self) -> None:
        self.found = ScanInputs([])
        self._seen: set[str] = set()
        self._pseudonyms: dict[str, str] = {}  # by the identity that a header has, which is shown nowhere

    def add(self, file: str, patient: str, eye: str) -> None:
        """Add the scans of a file; one that cannot be read is refused."""
        place = os.path.realpath(file)
        if place in self._seen:
            return
        self._seen.add(place)
        path, only = split_address(file) if not Path(file).exists() else (file, None)
        if only is None and not is_volume(Path(path)):
            self.found.scans.append(ScanInput(file, file, None, patient, eye))
            return
        try:
            volume = open_volume(Path(path))
        except ImageError as why:
            self.found.refused.append((path, only, "unreadable", str(why)))
            return
        except FileNotFoundError:
            self.found.refused.append((path, only, "missing_file", "the file is gone"))
            return
        self._seen |= {os.path.realpath(part) for part in volume.parts}
        self._drop_parts(volume)
        for frame in range(len(volume.frames)) if only is None else [only]:
            if frame < len(volume.frames):
                self.found.scans.append(self._frame(path, volume, frame, patient, eye))
            else:
                detail = f"no B-scan {frame}; the file has 0 to {len(volume.frames) - 1}"
                self.found.refused.append((path, frame, "missing_file", detail))

    def _drop_parts(self, volume: Volume) -> None:
        """Remove images that belong to a volume and were listed before it: as its B-scans, or its fundus image."""
        parts = {os.path.realpath(part) for part in volume.parts}
        if parts:
            self.found.scans = [scan for scan in self.found.scans if os.path.realpath(scan.file) not in parts]

    def _frame(self, path: str, volume: Volume, index: int, patient: str, eye: str) -> ScanInput:
        identity = volume.series_of(index).patient
        if not patient and identity is not None:
            patient = self._pseudonyms.setdefault(identity, f"patient-{len(self._pseudonyms) + 1:04d}")
        return ScanInput(f"{path}#{index}", path, index, patient, eye or volume.frames[index].laterality or "")


def _of_store(path: Path) -> ScanInputs:
    cohort = read_cohort(path)
    columns = [cohort.manifest[name].fillna("").tolist() for name in ("scan_id", "path", "patient", "eye")]
    return ScanInputs(
        [ScanInput(name, file, None, patient, eye) for name, file, patient, eye in zip(*columns, strict=True)],
        cohort=cohort,
    )


def _files(text: str) -> Iterator[Named]:
    """Yield file, patient and eye of each file that one argument names."""
    path = Path(text)
    if path.is_dir():
        yield from ((file, "", "") for file in _below(path))
    elif path.suffix.lower() == ".csv" and path.exists():
        yield from _of_table(path)
    elif path.exists() or not glob.has_magic(text):
        if not path.exists() and not Path(split_address(text)[0]).is_file():
            raise UserError(f"{text}: no such file or folder")
        yield text, "", ""
    else:
        names = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  the pattern may be absolute
        if not names:
            raise UserError(f"{text}: no file of this pattern")
        for name in names:
            yield from ((file, "", "") for file in (_below(Path(name)) if Path(name).is_dir() else [name]))


def _below(folder: Path) -> list[str]:
    """Files below a folder that may be scans, in the order of their paths, without hidden ones."""
    found, others = [], Counter[str]()
    for base, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(file for file in files if not file.startswith(".")):
            path = os.path.join(base, name)  # noqa: PTH118  called for every file
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES or is_volume(Path(path)):
                found.append(path)
            else:
                others[suffix or "no suffix"] += 1
    if others:
        log.info("%s: no scans, ignored: %s", folder, ", ".join(f"{n} {s}" for s, n in others.most_common()))
    return found


def _of_table(path: Path) -> Iterator[Named]:
    table = read_csv(path, dtype=str, keep_default_na=False)
    names = {own: next((c for c in table.columns if str(c).lower() in alike), None) for own, alike in COLUMNS.items()}
    if names["path"] is None:
        raise UserError(f"{path}: no column path; expected one with the path of a scan per row")
    empty = pd.Series("", index=table.index)
    patients, eyes = (table[names[key]] if names[key] else empty for key in ("patient", "eye"))
    for row, (text, patient, eye) in enumerate(zip(table[names["path"]], patients, eyes, strict=True), 2):
        if not text.strip():
            raise UserError(f"{path}: row {row}: {names['path']} is empty; expected the path of a scan")
        yield str(path.parent / text), patient, eye
