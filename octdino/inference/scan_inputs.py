"""Inputs of predict and embed: files, folders, patterns, tables with a path column, and a cohort's store."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from octdino.config.cohort import ImageSettings
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import read_csv
from octdino.errors import UserError
from octdino.progress import progress
from octdino.scans.decode_pool import decode_scans
from octdino.scans.preprocess import SUFFIXES, DecodedScan
from octdino.scans.sources import FolderSource

log = logging.getLogger("octdino.inference")

BLOCK = 256  # scans that are in memory at a time
COLUMNS = {"path": ("path", "file", "filename", "image"), "patient": ("patient", "patient_id"), "eye": ("eye",)}


@dataclass(frozen=True)
class ScanInput:
    """One scan to predict.

    Attributes:
        address: where it is read from: a path, with #N for B-scan N of a volume; for a store, the scan's id.
        file: the file as it was named or found.
        frame: number of the B-scan in a volume; None for an image of one scan.
        patient, eye: as the table or the store says; empty where unknown.
    """

    address: str
    file: str
    frame: int | None = None
    patient: str = ""
    eye: str = ""


Refused = tuple[str, int | None, str, str]  # file, frame, reason, detail


@dataclass(frozen=True)
class Block:
    """Some scans after decoding.

    Attributes:
        places: of the accepted scans among all inputs.
        scans: the accepted scans.
        images: theirs, uint8 [n, C, H, W]; n may be 0.
        refused: the others.
    """

    places: list[int]
    scans: list[ScanInput]
    images: np.ndarray
    refused: list[Refused]


@dataclass
class ScanInputs:
    """All scans to predict, in order.

    Attributes:
        refused: files that cannot be listed.
        cohort: of a store; its scans are preprocessed already.
    """

    scans: list[ScanInput]
    refused: list[Refused] = field(default_factory=list)
    cohort: Cohort | None = None

    def decode(self, places: list[int], settings: ImageSettings, workers: int) -> Iterator[DecodedScan]:
        """Preprocess the scans at these places, in order; bad ones are returned with a reason.

        Raises:
            UserError: a store of other image settings.
        """
        if self.cohort is None:
            paths = [self.scans[place].address for place in places]
            return decode_scans(paths, FolderSource(Path()), settings, workers)
        if self.cohort.image != settings:
            raise UserError(f"{self.cohort.store}: image settings {self.cohort.image}; the model takes {settings}")
        return _stored(self.cohort, places)

    def blocks(
        self, settings: ImageSettings, workers: int, what: str, places: list[int] | None = None
    ) -> Iterator[Block]:
        """Preprocess the scans at these places (all by default) and yield them in blocks; progress is shown as `what`.

        Raises:
            UserError: as `decode`.
        """
        left = list(range(len(self.scans))) if places is None else places
        decoded = iter(progress(self.decode(left, settings, workers), len(left), what, "scan"))
        for start in range(0, len(left), BLOCK):
            own = left[start : start + BLOCK]
            found = list(zip(own, islice(decoded, len(own)), strict=True))
            good = [(place, one.image) for place, one in found if one.image is not None]
            images = [image for _, image in good]
            yield Block(
                places=[place for place, _ in good],
                scans=[self.scans[place] for place, _ in good],
                images=np.stack(images) if images else np.zeros((0, settings.channels, *settings.size), np.uint8),
                refused=[
                    (self.scans[place].file, self.scans[place].frame, one.reason, one.detail)
                    for place, one in found
                    if one.image is None
                ],
            )


def _stored(cohort: Cohort, places: list[int]) -> Iterator[DecodedScan]:
    for start in range(0, len(places), BLOCK):
        rows = np.asarray(places[start : start + BLOCK])
        for image in cohort.images(rows):
            yield DecodedScan(image, np.zeros((2, len(image))))


def list_inputs(texts: Iterable[str]) -> ScanInputs:
    """Return the scans that the arguments of a command name, each file once, folders in the order of names.

    Args:
        texts: paths of images, volumes, folders (with all below them), CSV tables with a column `path`, patterns with
            * and ?, or one scans.h5.

    Raises:
        UserError: an argument names nothing, a table has no path column, or there is no scan.
    """
    texts = list(texts)
    stores = [text for text in texts if text.endswith(".h5")]
    if stores:
        if len(texts) > 1:
            raise UserError(f"{stores[0]}: a store with other inputs; expected it alone")
        return _of_store(Path(stores[0]))
    found = ScanInputs([])
    seen: set[str] = set()
    for text in texts:
        for file, patient, eye in _files(text):
            place = os.path.realpath(file)
            if place in seen:
                continue
            seen.add(place)
            found.scans.append(ScanInput(file, file, None, patient, eye))
    if not found.scans and not found.refused:
        raise UserError(f"{' '.join(texts)[:200]}: no scan; expected {', '.join(sorted(SUFFIXES))}")
    return found


def _of_store(path: Path) -> ScanInputs:
    cohort = read_cohort(path)
    columns = [cohort.manifest[name].fillna("").tolist() for name in ("scan_id", "path", "patient", "eye")]
    return ScanInputs(
        [ScanInput(name, file, None, patient, eye) for name, file, patient, eye in zip(*columns, strict=True)],
        cohort=cohort,
    )


def _files(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield file, patient and eye of each file that one argument names."""
    path = Path(text)
    if path.is_dir():
        yield from ((file, "", "") for file in _below(path))
    elif path.suffix.lower() == ".csv" and path.exists():
        yield from _of_table(path)
    elif path.exists() or not glob.has_magic(text):
        volume = text.rpartition("#")[0]  # path#N: one B-scan of a volume
        if not path.exists() and not (volume and Path(volume).exists()):
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
        for name in sorted(files):
            if name.startswith("."):
                continue
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES:
                found.append(os.path.join(base, name))  # noqa: PTH118  called for every file
            else:
                others[suffix or "no suffix"] += 1
    if others:
        log.info("%s: no scans, ignored: %s", folder, ", ".join(f"{n} {s}" for s, n in others.most_common()))
    return found


def _of_table(path: Path) -> Iterator[tuple[str, str, str]]:
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
