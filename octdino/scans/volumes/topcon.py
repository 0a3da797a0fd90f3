"""Topcon `.fda` and `.fds`: a header of 15 bytes, then named chunks; B-scans as JPEG 2000 or as 16-bit samples.

The layout is known from the uocte project, LibOctData and OCT-Converter; Topcon has not published it.
"""

import struct
from functools import partial
from pathlib import Path

import numpy as np

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.codestreams import jpeg2000
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
    text_of,
)

MAGIC = b"FOCT"
HEADER = 15
MAX_CHUNKS = 10_000
RAW = (b"@IMG_SCAN_03", b"@IMG_MOT_COMP_03")
COMPRESSED = struct.Struct("<B6I")  # mode, -, -, width, height, frames, -
UNCOMPRESSED = struct.Struct("<B4IBI")  # mode, width, height, bits, frames, format, size
PATIENT = struct.Struct("<32s32s32s8sB3H")  # id, first name, surname, middle name, sex, birth
CAPTURE = struct.Struct("<2BI100s6H")  # eye, mode, session, label, time

Span = tuple[int, int]  # start and size in bytes


def open_topcon(path: Path) -> Volume:
    """Open a Topcon file.

    Raises:
        ImageError: another file, a damaged one, or none of the known chunks of B-scans.
    """
    if not read_span(path, 0, HEADER).startswith(MAGIC):
        raise ImageError("no Topcon file: it does not begin with FOCT")
    chunks = _chunks(path)
    raw = next((name for name in RAW if name in chunks), None)
    if b"@IMG_JPEG" in chunks:
        count, reader = _compressed(path, chunks[b"@IMG_JPEG"])
    elif raw:
        count, reader = _uncompressed(path, chunks[raw])
    else:
        raise ImageError("no B-scans: it has neither @IMG_JPEG nor 16-bit scans")
    laterality, visit = _capture(path, chunks)
    model = _content(path, chunks, b"@HW_INFO_03", 16)
    series = SeriesInfo(*_patient(path, chunks), visit, device_name("Topcon", text_of(model or b"")))
    frames = tuple(FrameInfo(1, n + 1, laterality) for n in range(count))
    return Volume(path, "Topcon", frames, (series,), reader)


def _chunks(path: Path) -> dict[bytes, Span]:
    """Return start and size of the first chunk of each name."""
    found: dict[bytes, Span] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        place = HEADER
        for _ in range(MAX_CHUNKS):
            file.seek(place)
            length = file.read(1)
            if length in (b"", b"\0"):
                return found
            name, bytes_ = file.read(length[0]), file.read(4)
            if not name.startswith(b"@") or len(bytes_) < 4:
                raise ImageError("a damaged list of chunks")
            span = (file.tell(), struct.unpack("<I", bytes_)[0])
            if sum(span) > size:
                raise ImageError(f"truncated: a chunk ends at {sum(span):,} of {size:,} bytes")
            found.setdefault(name, span)
            place = sum(span)
    raise ImageError(f"more than {MAX_CHUNKS:,} chunks")


def _compressed(path: Path, span: Span) -> tuple[int, partial[np.ndarray]]:
    """Return the number of JPEG 2000 frames and their reader."""
    _, _, _, width, height, count, _ = COMPRESSED.unpack(_within(path, span, COMPRESSED.size))
    check_frame(width, height)
    check_count(count)
    places: list[Span] = []
    place, end = span[0] + COMPRESSED.size, sum(span)
    with path.open("rb") as file:
        for _ in range(count):
            file.seek(place)
            content = file.read(4)
            size = struct.unpack("<I", content)[0] if len(content) == 4 else 0
            if not 0 < size <= end - place - 4:
                raise ImageError(f"truncated: {len(places)} of {count} B-scans")
            places.append((place + 4, size))
            place += 4 + size
    return count, partial(_read_compressed, path, places, (width, height))


def _uncompressed(path: Path, span: Span) -> tuple[int, partial[np.ndarray]]:
    _, width, height, bits, count, _, _ = UNCOMPRESSED.unpack(_within(path, span, UNCOMPRESSED.size))
    check_frame(width, height)
    check_count(count)
    if bits != 16:
        raise ImageError(f"B-scans of {bits} bits; expected 16")
    if UNCOMPRESSED.size + 2 * width * height * count > span[1]:
        raise ImageError(f"truncated: {span[1]:,} bytes for {count} B-scans of {width} x {height}")
    return count, partial(_read_uncompressed, path, span[0] + UNCOMPRESSED.size, (height, width))


def _read_compressed(path: Path, places: list[Span], size: tuple[int, int], index: int) -> np.ndarray:
    return jpeg2000(read_span(path, *places[index]), *size)


def _read_uncompressed(path: Path, start: int, shape: tuple[int, int], index: int) -> np.ndarray:
    bytes_per_frame = 2 * shape[0] * shape[1]
    content = read_span(path, start + index * bytes_per_frame, bytes_per_frame)
    return np.frombuffer(content, "<u2").reshape(shape).astype(np.uint16)


def _within(path: Path, span: Span, count: int) -> bytes:
    if span[1] < count:
        raise ImageError(f"truncated: a chunk of {span[1]} bytes")
    return read_span(path, span[0], count)


def _content(path: Path, chunks: dict[bytes, Span], name: bytes, count: int) -> bytes | None:
    """Return the first bytes of a chunk; None if it is missing or shorter."""
    span = chunks.get(name)
    return read_span(path, span[0], count) if span and span[1] >= count else None


def _patient(path: Path, chunks: dict[bytes, Span]) -> tuple[str | None, str | None]:
    """Return identity and id; newer files hide both, but equally for equal patients."""
    if content := _content(path, chunks, b"@PATIENT_INFO_02", PATIENT.size):
        number, first, last, _, _, year, month, day = PATIENT.unpack(content)
        name = f"{text_of(last)} {text_of(first)}".strip()
        return identity(text_of(number), name, date_of(year, month, day) or "")
    hidden = _content(path, chunks, b"@PATIENT_INFO_03", 32)
    return (f"hidden {hidden.hex()}", None) if hidden and any(hidden) else (None, None)


def _capture(path: Path, chunks: dict[bytes, Span]) -> tuple[str | None, str | None]:
    """Return laterality and date."""
    content = _content(path, chunks, b"@CAPTURE_INFO_02", CAPTURE.size)
    if content is None:
        return None, None
    eye, _, _, _, year, month, day, *_ = CAPTURE.unpack(content)
    return {0: "OD", 1: "OS"}.get(eye), date_of(year, month, day)
