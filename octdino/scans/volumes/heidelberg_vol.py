"""Heidelberg `.vol`, the raw export of HEYEX: a header, the fundus image, then one header and float32 image per B-scan.

Read with `struct`: the layout is fixed and public (Heidelberg's "Special Function: Exporting Raw Data"), a frame is one
seek away, and libraries load the whole file.
"""

import struct
from functools import partial
from pathlib import Path

import numpy as np

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.display import fourth_root
from octdino.scans.volumes.volume import (
    FrameInfo,
    SeriesInfo,
    Volume,
    check_count,
    check_frame,
    date_of_days,
    date_of_ticks,
    device_name,
    identity,
    read_span,
    text_of,
    thickness,
)

MAGICS = (b"HSF-OCT-", b"ep-v")  # HEYEX, and eyepy, which writes the same layout
HEADER = 2048
# version, width, frames, height, scales, fundus size and scales, field, focus, eye, time, pattern, frame header's
# bytes, ids of scan and reference, internal id, patient's id, birth, internal visit, visit's id and date, grids.
LAYOUT = struct.Struct("<12s3I3d2I2dId4sQ2I16s16sI24sdI24sd4I")
GRID = struct.Struct("<i5d4f18f")  # type, diameters, center, thickness at the center, its range, volume; nine sectors
FRAME_HEADER = (256, 2**24)


def open_vol(path: Path) -> Volume:
    """Open a `.vol` file.

    Raises:
        ImageError: another file, or a damaged one.
    """
    if not read_span(path, 0, 12).startswith(MAGICS):
        raise ImageError("no Heidelberg .vol file: it does not begin with HSF-OCT")
    values = LAYOUT.unpack(read_span(path, 0, HEADER)[: LAYOUT.size])
    _, width, frames, height = values[:4]
    fundus = values[7] * values[8]
    eye, ticks = text_of(values[13]), values[14]
    patient, birth, visit_day, grid, grid_at = text_of(values[20]), values[21], values[24], values[25], values[26]
    check_frame(width, height)
    check_count(frames)
    # As the first frame has it: HEYEX writes the same number into the file's header, eyepy a constant.
    (header_bytes,) = struct.unpack("<I", read_span(path, HEADER + fundus + 12, 4))
    if not FRAME_HEADER[0] <= header_bytes <= FRAME_HEADER[1]:
        raise ImageError(f"headers of {header_bytes:,} bytes per B-scan; expected {FRAME_HEADER[0]} or more")
    step = header_bytes + 4 * width * height
    if (needed := HEADER + fundus + frames * step) > path.stat().st_size:
        raise ImageError(f"truncated: {path.stat().st_size:,} bytes; its header says {needed:,}")
    laterality = eye if eye in ("OD", "OS") else None
    key, own = identity(patient)
    if key is None and values[19]:  # the patient's number in the database of one HEYEX
        key = f"heyex {values[19]} born {date_of_days(birth)}"
    cst = _central_subfield(path, grid_at) if grid else None
    series = SeriesInfo(key, own, date_of_days(visit_day) or date_of_ticks(ticks), device_name("Heidelberg"), cst)
    reader = partial(_read, path, HEADER + fundus + header_bytes, step, (height, width))
    return Volume(
        path, "Heidelberg vol", tuple(FrameInfo(1, n + 1, laterality) for n in range(frames)), (series,), reader
    )


def _read(path: Path, start: int, step: int, shape: tuple[int, int], index: int) -> np.ndarray:
    content = read_span(path, start + index * step, 4 * shape[0] * shape[1])
    return fourth_root(np.frombuffer(content, "<f4").reshape(shape))


def _central_subfield(path: Path, start: int) -> float | None:
    """Return the mean thickness of the central sector, µm; None where the grid is outside the file or another one."""
    if not 0 < start <= path.stat().st_size - GRID.size:
        return None
    values = GRID.unpack(read_span(path, start, GRID.size))
    etdrs = abs(values[1] - 1) < 0.01  # the central sector has a diameter of 1 mm
    return thickness(values[10]) if etdrs else None
