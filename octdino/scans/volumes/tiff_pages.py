"""TIFF files of several images of one size, as some devices export a volume: each page is a B-scan.

The directories are listed once; a page is read from a view of the file in which it is the only one, so that all checks
of single images hold for it.
"""

import io
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy as np

from octdino.scans.image_files import ImageError
from octdino.scans.preprocess import pixels_of
from octdino.scans.volumes.volume import MAX_FRAMES, FrameInfo, SeriesInfo, Volume, check_frame, read_span

MAGICS = {b"II*\0": "<", b"MM\0*": ">"}
SUBFILE, WIDTH, HEIGHT, PHOTOMETRIC = 254, 256, 257, 262
PALETTE = 3
SHORT = 3
MAX_TAGS = 512


@dataclass(frozen=True)
class _Page:
    directory: int  # position in the file
    next_at: int  # position of the pointer to the next directory


def has_pages(path: Path) -> bool:
    """Return whether this is a TIFF with a second image; only its first directory is read."""
    try:
        pages = list(_walk(path, most=2))
    except (ImageError, OSError, struct.error):
        return False  # then it is refused as an image, with that reason
    return len(pages) > 1


def open_tiff_pages(path: Path) -> Volume:
    """Open a TIFF of several pages.

    Raises:
        ImageError: a damaged file, pages of several sizes, thumbnails, or colors from a palette.
    """
    pages = _walk(path, most=MAX_FRAMES)
    if len(pages) < 2:
        raise ImageError("one image in the file; expected pages")
    tags = [_tags(path, page) for page in pages]
    sizes = {(found.get(WIDTH, 0), found.get(HEIGHT, 0)) for found in tags}
    if len(sizes) > 1:
        raise ImageError(f"pages of {len(sizes)} sizes; expected B-scans of one size")
    check_frame(*sizes.pop())
    if any(found.get(SUBFILE, 0) & 1 for found in tags):
        raise ImageError("pages that are thumbnails of others; expected B-scans")
    if any(found.get(PHOTOMETRIC, 1) == PALETTE for found in tags):
        raise ImageError("pages with colors from a palette; expected gray B-scans")
    frames = tuple(FrameInfo(1, number + 1) for number in range(len(pages)))
    return Volume(path, "TIFF pages", frames, (SeriesInfo(),), partial(_read, path, pages))


def _order(path: Path) -> str:
    order = MAGICS.get(read_span(path, 0, 8)[:4])
    if order is None:
        raise ImageError("no TIFF file")
    return order


def _walk(path: Path, most: int) -> list[_Page]:
    """Return the pages in order, at most `most` when only asked for so many.

    Raises:
        ImageError: directories that leave the file or lead in circles, or more than MAX_FRAMES of them.
    """
    order = _order(path)
    (place,) = struct.unpack(f"{order}I", read_span(path, 4, 4))
    pages: list[_Page] = []
    seen: set[int] = set()
    while place:
        if place in seen:
            raise ImageError("its directories lead in circles")
        if len(pages) == most:
            if most < MAX_FRAMES:
                return pages
            raise ImageError(f"more than {MAX_FRAMES:,} pages")
        seen.add(place)
        (count,) = struct.unpack(f"{order}H", read_span(path, place, 2))
        if not 1 <= count <= MAX_TAGS:
            raise ImageError(f"a directory of {count} tags")
        next_at = place + 2 + 12 * count
        pages.append(_Page(place, next_at))
        (place,) = struct.unpack(f"{order}I", read_span(path, next_at, 4))
    return pages


def _tags(path: Path, page: _Page) -> dict[int, int]:
    """Return the tags of one whole number, by tag."""
    order = _order(path)
    found = {}
    content = read_span(path, page.directory + 2, page.next_at - page.directory - 2)
    for tag, kind, count, value in struct.iter_unpack(f"{order}HHI4s", content):
        if count == 1 and kind in (SHORT, SHORT + 1):
            found[tag] = struct.unpack(f"{order}{'H' if kind == SHORT else 'I'}", value[: 2 if kind == SHORT else 4])[0]
    return found


def _read(path: Path, pages: list[_Page], index: int) -> np.ndarray:
    with path.open("rb") as file:
        return pixels_of(cast(IO[bytes], _OnePage(file, pages[index], _order(path))), 1)


class _OnePage(io.RawIOBase):
    """View of a TIFF in which one page is first and last: two pointers of four bytes differ from the file."""

    def __init__(self, file: io.BufferedReader, page: _Page, order: str) -> None:
        self._file = file
        self._patches = {4: struct.pack(f"{order}I", page.directory), page.next_at: bytes(4)}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        start = self._file.tell()
        content = bytearray(self._file.read(size))
        for place, patch in self._patches.items():
            for number, value in enumerate(patch):
                if 0 <= place + number - start < len(content):
                    content[place + number - start] = value
        return bytes(content)
