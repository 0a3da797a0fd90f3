"""Uploaded files to preprocessed scans. Images stay in memory; volumes are in a private file while they are read."""

import re
import shutil
import tempfile
import unicodedata
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from octdino.config.cohort import ImageSettings
from octdino.errors import UserError, one_line
from octdino.scans.image_files import ImageError
from octdino.scans.preprocess import DecodedScan, decode_scan
from octdino.scans.volumes.dicom import MAGIC, MAGIC_AT
from octdino.scans.volumes.registry import OPENERS, is_volume, open_volume

# Files with one of these suffixes are read by path, because they may be volumes; all others are decoded in memory.
VOLUME_SUFFIXES = frozenset(OPENERS) - {".xml"}
CUBE = re.compile(
    r"(\d{2,4})x(\d{1,4}).*_cube_z\.img", re.IGNORECASE
)  # Zeiss names the size of a cube in the file name
LONGEST_NAME = 100


@dataclass(frozen=True)
class Upload:
    """One uploaded file.

    Attributes:
        name: as the client named it, cleaned by `shown_name`; it is shown and never used as a path.
        content: open binary file, in memory.
    """

    name: str
    content: IO[bytes]


@dataclass(frozen=True)
class UploadedScan:
    """A scan of an upload after decoding.

    Attributes:
        frame: number of the B-scan in its volume, from 0; None for an image of one scan.
        decoded: the preprocessed scan, or the reason why it was refused.
    """

    frame: int | None
    decoded: DecodedScan


def shown_name(name: str, number: int) -> str:
    """Return a client's file name without folders and control characters, at most `LONGEST_NAME` characters."""
    last = re.split(r"[\\/]", name)[-1]
    kept = "".join(letter for letter in last if not unicodedata.category(letter).startswith("C")).strip()
    if len(kept) > LONGEST_NAME:
        kept = f"{kept[: LONGEST_NAME - 20]}…{kept[-19:]}"
    return kept or f"file {number}"


def uploaded_scans(upload: Upload, settings: ImageSettings, most: int) -> Generator[UploadedScan, None, None]:
    """Decode the scans of an upload, one at a time; bad ones are yielded with a reason.

    Args:
        most: scans that a file may have.
    """
    suffix = Path(upload.name).suffix.lower()
    if suffix == ".xml":
        yield _refused("an XML export needs the images beside it; use octdino predict on its folder", settings)
    elif suffix in VOLUME_SUFFIXES or _is_dicom(upload.content):
        with _private_file(upload) as path:
            yield from _scans_at(path, settings, most)
    else:
        upload.content.seek(0)
        content = upload.content.read()
        yield UploadedScan(None, decode_scan(upload.name, settings, lambda _: content))


def _scans_at(path: Path, settings: ImageSettings, most: int) -> Iterator[UploadedScan]:
    try:  # not `list_frames` and `read_frame`, which keep the header of the last volume in memory
        volume = open_volume(path) if is_volume(path) else None
    except (ImageError, UserError, OSError) as error:
        yield _refused(_without(path, one_line(error)), settings)
        return
    if volume is None:
        yield _cleaned(path, UploadedScan(None, decode_scan(path, settings)))
        return
    count = len(volume.frames)
    if count > most:
        yield _refused(f"{count:,} B-scans; expected at most {most:,}; use octdino predict", settings)
        return
    for number in range(count):
        decoded = decode_scan(str(number), settings, lambda index: volume.read(int(index)))
        yield _cleaned(path, UploadedScan(number, decoded))


def _cleaned(path: Path, scan: UploadedScan) -> UploadedScan:
    return replace(scan, decoded=replace(scan.decoded, detail=_without(path, scan.decoded.detail)))


def _refused(detail: str, settings: ImageSettings) -> UploadedScan:
    moments = np.zeros((2, settings.channels))
    return UploadedScan(None, DecodedScan(None, moments, reason="unreadable", detail=detail))


def _without(path: Path, text: str) -> str:
    """Remove the path of the private file from the text of an error."""
    return text.replace(str(path), "the file").replace(path.name, "the file")


def _is_dicom(content: IO[bytes]) -> bool:
    content.seek(MAGIC_AT)
    return content.read(len(MAGIC)) == MAGIC


@contextmanager
def _private_file(upload: Upload) -> Iterator[Path]:
    """Write an upload to a file of a new folder that only this user may read, and remove both afterwards.

    Nothing of the client's name is in the path, but for the suffix, one of a fixed set, and the size of a Zeiss cube.
    """
    suffix = Path(upload.name).suffix.lower()
    cube = CUBE.search(upload.name)
    stem = f"scan_{int(cube[1])}x{int(cube[2])}_cube_z" if cube else "scan"
    with tempfile.TemporaryDirectory(prefix="octdino-") as folder:  # its mode is 0700
        path = Path(folder) / f"{stem}{suffix if suffix in VOLUME_SUFFIXES else ''}"
        upload.content.seek(0)
        with path.open("xb") as file:
            shutil.copyfileobj(upload.content, file)
        yield path
