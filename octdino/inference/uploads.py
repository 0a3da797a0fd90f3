"""Uploaded files to preprocessed scans. Images stay in memory; volumes are in a private file while they are read."""

import re
import shutil
import tempfile
import unicodedata
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from octdino.config.cohort import ImageSettings
from octdino.errors import UserError, one_line
from octdino.scans.image_files import ImageError
from octdino.scans.preprocess import DecodedScan, decode_scan
from octdino.scans.sources import FolderSource

# Files with one of these suffixes are read by path, because they may be volumes; all others are decoded in memory.
VOLUME_SUFFIXES = frozenset({".tif", ".tiff", ".vol", ".e2e", ".dcm", ".dicom", ".img", ".fda", ".fds"})
DICOM_MAGIC, DICOM_AT = b"DICM", 128
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


def frames_of(path: Path) -> list[str]:
    """Return the addresses of the scans in a file: `path#0`, `path#1`, … of a volume, `path` of an image.

    Raises:
        ImageError, UserError, OSError: a volume that cannot be opened.
    """
    name = "octdino.scans.volumes"
    if find_spec(name) is None:
        return [str(path)]
    found: list[str] = import_module(f"{name}.registry").list_frames(path)
    return found


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
    try:
        addresses = frames_of(path)
    except (ImageError, UserError, OSError) as error:
        yield _refused(_without(path, one_line(error)), settings)
        return
    if len(addresses) > most:
        yield _refused(f"{len(addresses):,} B-scans; expected at most {most:,}; use octdino predict", settings)
        return
    for number, address in enumerate(addresses):
        decoded = decode_scan(address, settings, FolderSource(Path()))
        if decoded.image is None:
            decoded = _refused(_without(path, decoded.detail), settings, decoded.reason).decoded
        yield UploadedScan(None if address == str(path) else number, decoded)


def _refused(detail: str, settings: ImageSettings, reason: str = "unreadable") -> UploadedScan:
    import numpy as np

    moments = np.zeros((2, settings.channels))
    return UploadedScan(None, DecodedScan(None, moments, reason=reason, detail=detail))


def _without(path: Path, text: str) -> str:
    """Remove the path of the private file from the text of an error."""
    return text.replace(str(path), "the file").replace(path.name, "the file")


def _is_dicom(content: IO[bytes]) -> bool:
    content.seek(DICOM_AT)
    return content.read(len(DICOM_MAGIC)) == DICOM_MAGIC


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
