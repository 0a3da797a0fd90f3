"""Heidelberg `.e2e`, the backup form of HEYEX: directories of chunks, linked from the last to the first.

The layout is known from the uocte project, LibE2E and eyepy; Heidelberg has not published it. Libraries load all images
of a file; here the directories are read once and a frame is one seek away.
"""

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.display import fourth_root
from octdino.scans.volumes.volume import (
    FrameInfo,
    SeriesInfo,
    Volume,
    check_frame,
    date_of_ticks,
    device_name,
    identity,
    read_span,
    text_of,
)

MAGIC, SEVERAL = b"CMDb", b"E2EMultipleVolumeFile"
SHIFT = 64  # bytes before the first magic in a file of several volumes; positions in it count from there
DIRECTORY = struct.Struct("<12sI20x3I4x")  # magic, version; entries, current, previous
ENTRY = struct.Struct("<3I4x3Ii2HI4x")  # position, start, size; patient, study, series, slice; kind, -, type
CHUNK_HEADER = 60
IMAGE = struct.Struct("<5I")  # size, type, values, height, width
PATIENT = struct.Struct("<31s51s15sI1s25s")  # first name, surname, title, birth, sex, id
PATIENT_TYPE, SIDE_TYPE, SIDE_TYPE_2, FRAME_TYPE, IMAGE_TYPE = 9, 11, 3, 10004, 0x40000000
SIDE_AT = {SIDE_TYPE: 14, SIDE_TYPE_2: 4}
TIME_AT = 88  # of the acquisition, in what a frame's chunk says
B_SCAN = 0x02200201  # 16-bit floats; 0x02010201 is the fundus image
MAX_DIRECTORIES, MAX_ENTRIES = 4096, 2**20

Key = tuple[int, int, int]  # patient, study, series


@dataclass
class _Directory:
    """What the directories list, by series."""

    images: dict[Key, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))  # start by slice
    sides: dict[Key, str] = field(default_factory=dict)
    times: dict[Key, int] = field(default_factory=dict)
    patients: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)


def open_e2e(path: Path) -> Volume:
    """Open an `.e2e` file.

    Raises:
        ImageError: another file, or a damaged one.
    """
    head = read_span(path, 0, min(path.stat().st_size, 128))
    shift = SHIFT if head.startswith(SEVERAL) else 0
    if not head[shift:].startswith(MAGIC):
        raise ImageError("no Heidelberg .e2e file: it does not begin with CMDb")
    listed = _list(path, shift)
    frames, places, series = [], [], []
    for key, starts in sorted(listed.images.items()):
        visit = listed.times.get(key)
        series.append(
            SeriesInfo(
                *listed.patients.get(key[0], (None, None)),
                None if visit is None else date_of_ticks(visit),
                device_name("Heidelberg"),
            )
        )
        for number, (_, start) in enumerate(sorted(starts.items()), 1):
            frames.append(FrameInfo(len(series), number, listed.sides.get(key)))
            places.append(start)
    return Volume(path, "Heidelberg e2e", tuple(frames), tuple(series), partial(_read, path, places))


def _list(path: Path, shift: int) -> _Directory:
    """Read all directories, from the last to the first."""
    listed = _Directory()
    count = 0
    current = DIRECTORY.unpack(read_span(path, shift + 36, DIRECTORY.size))[3]
    seen: set[int] = set()
    while current:
        if current in seen or len(seen) >= MAX_DIRECTORIES:
            raise ImageError("its directories lead in circles")
        seen.add(current)
        magic, _, entries, _, previous = DIRECTORY.unpack(read_span(path, shift + current, DIRECTORY.size))
        count += entries
        if not magic.startswith(b"MDbDir") or count > MAX_ENTRIES:
            raise ImageError("a damaged directory")
        content = read_span(path, shift + current + DIRECTORY.size, entries * ENTRY.size)
        for position, start, size, patient, study, series, slice_id, kind, _, type_ in ENTRY.iter_unpack(content):
            if start > position:
                _add(listed, path, shift + start, size, (patient, study, series), slice_id, (kind, type_))
        current = previous
    return listed


def _add(listed: _Directory, path: Path, start: int, size: int, key: Key, slice_id: int, what: tuple[int, int]) -> None:
    """Add a chunk; what is not needed or twice there is left out.

    Chunks about the patient may be outside the file: HEYEX's anonymizing removes them, but not their entries.
    """
    kind, type_ = what
    start += CHUNK_HEADER
    if type_ != IMAGE_TYPE and start + size > path.stat().st_size:
        return
    if type_ == IMAGE_TYPE and kind == 1:
        if IMAGE.unpack(read_span(path, start, IMAGE.size))[1] == B_SCAN:
            listed.images[key].setdefault(slice_id, start)
    elif type_ == PATIENT_TYPE and key[0] not in listed.patients and size >= PATIENT.size:
        first, last, _, birth, _, number = PATIENT.unpack(read_span(path, start, PATIENT.size))
        name = f"{text_of(last)} {text_of(first)}".strip()
        listed.patients[key[0]] = identity(text_of(number), name, str(birth))
    elif type_ in SIDE_AT and key not in listed.sides and size > SIDE_AT[type_]:
        letter = read_span(path, start + SIDE_AT[type_], 1)
        if letter in (b"R", b"L"):
            listed.sides[key] = "OD" if letter == b"R" else "OS"
    elif type_ == FRAME_TYPE and key not in listed.times and size >= TIME_AT + 8:
        (listed.times[key],) = struct.unpack("<Q", read_span(path, start + TIME_AT, 8))


def _read(path: Path, places: list[int], index: int) -> np.ndarray:
    _, _, _, height, width = IMAGE.unpack(read_span(path, places[index], IMAGE.size))
    check_frame(width, height)
    content = read_span(path, places[index] + IMAGE.size, 2 * width * height)
    gray: np.ndarray = _gray_levels()[np.frombuffer(content, "<u2")].reshape(height, width)
    return gray


@cache
def _gray_levels() -> np.ndarray:
    """Return the gray level of each of the 65,536 floats: 6 bits of exponent, 10 of mantissa, no sign.

    The largest marks places without data, an exponent of 0 is 0.
    """
    codes = np.arange(2**16)
    exponents, mantissas = codes >> 10, codes & 1023
    values = np.where(exponents == 0, 0, np.ldexp(1 + mantissas / 1024, exponents - 63))
    values[-1] = 0
    return fourth_root(values)
