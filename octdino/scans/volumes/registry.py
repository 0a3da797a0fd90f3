"""The clinical formats: which file is one, opening it, and the addresses of its B-scans, `path#N` with N from 0."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from octdino.scans.image_files import ImageError, check_file
from octdino.scans.volumes import dicom, heidelberg_e2e, heidelberg_vol, heyex_xml, tiff_pages, topcon, zeiss_img
from octdino.scans.volumes.volume import MAX_VOLUME_BYTES, Volume, guarded

OPENERS: dict[str, Callable[[Path], Volume]] = {
    ".vol": heidelberg_vol.open_vol,
    ".e2e": heidelberg_e2e.open_e2e,
    ".xml": heyex_xml.open_heyex_xml,
    ".dcm": dicom.open_dicom,
    ".dicom": dicom.open_dicom,
    ".img": zeiss_img.open_img,
    ".fda": topcon.open_topcon,
    ".fds": topcon.open_topcon,
    ".tif": tiff_pages.open_tiff_pages,
    ".tiff": tiff_pages.open_tiff_pages,
}
ADDRESS = re.compile(r"(.+)#(\d{1,9})", re.DOTALL)
# DICOM files are often named by their UID, without a suffix; 128 bytes tell.
NAMELESS = re.compile(r"(\.\d*)?")

_last: tuple[tuple[str, int, int], Volume] | None = None


def is_volume(path: Path) -> bool:
    """Return whether a file is a clinical one, by its suffix and first bytes; no pixel is read.

    An `.xml` is one if it begins as HEYEX's do, a TIFF if it has several pages; a file without a suffix if it is DICOM.
    A file of the other suffixes is one, and if its content is another, `open_volume` says so.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".tif", ".tiff"):
            return path.is_file() and tiff_pages.has_pages(path)
        if suffix == ".xml":
            return path.is_file() and heyex_xml.is_heyex(_head(path, 4096))
        if suffix in OPENERS:
            return path.is_file()
        if NAMELESS.fullmatch(suffix) and path.name.upper() != "DICOMDIR" and path.is_file():
            return _head(path, dicom.MAGIC_AT + 4)[dicom.MAGIC_AT :] == dicom.MAGIC
    except OSError:
        pass
    return False


def open_volume(path: Path) -> Volume:
    """Open a clinical file: header and places of the B-scans, no pixels.

    Raises:
        ImageError: another file, or a damaged one; the message is one line and quotes no name or id of the header.
        UserError: the package that reads this format is not installed.
        FileNotFoundError, PermissionError: as the file system says.
    """
    check_file(path, MAX_VOLUME_BYTES)
    return guarded(OPENERS.get(path.suffix.lower(), dicom.open_dicom), path)


def list_frames(path: Path) -> list[str]:
    """Return the addresses of the scans in a file: `path#0`, `path#1`, … of a clinical file, `path` of an image.

    Raises:
        ImageError, UserError, OSError: as `open_volume`.
    """
    return [f"{path}#{n}" for n in range(len(open_volume(path).frames))] if is_volume(path) else [str(path)]


def without_parts(paths: Iterable[Path]) -> list[Path]:
    """Return the files without the images that belong to a HEYEX XML among them; the fundus image is one of these."""
    paths = list(paths)
    parts: set[Path] = set()
    for path in paths:
        if path.suffix.lower() == ".xml" and is_volume(path):
            try:
                parts |= set(open_volume(path).parts)
            except (ImageError, OSError):
                continue  # it is refused when it is read; its images stay images
    return [path for path in paths if path not in parts]


def split_address(address: str) -> tuple[str, int | None]:
    """Return path and number of an address `path#N`; the number is None without one."""
    found = ADDRESS.fullmatch(address)
    return (found[1], int(found[2])) if found else (address, None)


def read_frame(path: Path, index: int) -> np.ndarray:
    """Read B-scan `index` of a clinical file as uint8 or uint16 [H, W].

    The last file stays open for the next frame, as scans of one file follow each other.

    Raises:
        ImageError, UserError, OSError: as `open_volume` and `Volume.read`.
    """
    global _last
    if not is_volume(path):
        path.stat()  # missing, rather than refused
        raise ImageError("not a file of several B-scans; expected its path without #")
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    if _last is None or _last[0] != key:
        _last = None  # before the next is opened: one is in memory at a time
        _last = (key, open_volume(path))
    return _last[1].read(index)


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)
