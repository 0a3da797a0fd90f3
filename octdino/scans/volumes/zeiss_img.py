"""Zeiss Cirrus and PLEX Elite research exports, `…_cube_z.img`: uint8 [B-scan, depth, A-scan] without a header.

What the file is, is in its name alone: `ID_Macular Cube 512x128_10-31-2019_9-5-2_OD_sn1234_cube_z.img`. The B-scans are
stored from the last to the first, upside down and from right to left.
"""

import math
import re
from functools import partial
from pathlib import Path

import numpy as np

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.volume import (
    FrameInfo,
    SeriesInfo,
    Volume,
    check_count,
    check_frame,
    date_of,
    device_name,
    identity,
    read_span,
)

CUBE = re.compile(r"(\d{2,4})x(\d{1,4})")
DATE = re.compile(r"_(\d{1,2})-(\d{1,2})-(\d{4})(?=_)")
EYE = re.compile(r"_(OD|OS)(?=_)", re.IGNORECASE)
REFUSED = ("flow", "raw", "hidef", "lslo", "iris", "fundus", "slo")
DEPTHS = (1024, 1536)


def open_img(path: Path) -> Volume:
    """Open a cube of a Zeiss research export.

    Raises:
        ImageError: a name without the cube's size, another kind of file, or another number of bytes.
    """
    name = path.stem
    ends = name.lower().split("_")[-2:]
    if found := [word for word in REFUSED if any(word in end for end in ends)]:
        raise ImageError(f"a Zeiss {found[0]} file; expected the structural cube, …_cube_z.img")
    size = CUBE.search(name)
    if size is None:
        raise ImageError("no size of a cube in the file's name; expected, as Zeiss names them, 512x128 or the like")
    width, frames = int(size[1]), int(size[2])
    check_count(frames)
    depth, rest = divmod(path.stat().st_size, max(width, 1) * frames)
    if rest or depth not in DEPTHS:
        raise ImageError(
            f"{path.stat().st_size:,} bytes; a cube of {width} x {frames} has {width * frames * DEPTHS[0]:,}"
        )
    check_frame(width, depth)
    eye = EYE.search(name)
    laterality = eye[1].upper() if eye else None
    prefix = name[: size.start()].split("_")[0] if "_" in name[: size.start()] else ""
    series = SeriesInfo(*identity(prefix), _visit(name), device_name("Zeiss"))
    reader = partial(_read, path, (frames, depth, width))
    return Volume(path, "Zeiss img", tuple(FrameInfo(1, n + 1, laterality) for n in range(frames)), (series,), reader)


def _read(path: Path, shape: tuple[int, int, int], index: int) -> np.ndarray:
    bytes_per_frame = math.prod(shape[1:])
    content = read_span(path, (shape[0] - 1 - index) * bytes_per_frame, bytes_per_frame)
    return np.ascontiguousarray(np.frombuffer(content, np.uint8).reshape(shape[1:])[::-1, ::-1])


def _visit(name: str) -> str | None:
    """Return the date in the name, which is month-day-year, or day-month-year with European settings."""
    if not (found := DATE.search(name)):
        return None
    first, second, year = map(int, found.groups())
    return date_of(year, first, second) or date_of(year, second, first)
