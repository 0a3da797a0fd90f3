"""DICOM Ophthalmic Tomography: the header by pydicom, the frames from where they are in the file, one at a time.

Only the SOP class of B-scans is read: a fundus photograph or a screen capture is refused. A compressed frame goes to
the decoder in a data set of its own, made here, after its size has been compared with the header's.
"""

import io
import logging
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from octdino.errors import UserError
from octdino.scans.image_files import ImageError
from octdino.scans.volumes.codestreams import check_stream
from octdino.scans.volumes.dicom_fragments import Span, frame_spans, transfer_syntax
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

MAGIC, MAGIC_AT = b"DICM", 128
MAX_HEADER_BYTES = 2**23  # all before the pixels; the groups of 1024 frames take about one MiB
TOMOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
OTHERS = {
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "a fundus photograph (Ophthalmic Photography, 8 bit)",
    "1.2.840.10008.5.1.4.1.1.77.1.5.2": "a fundus photograph (Ophthalmic Photography, 16 bit)",
    "1.2.840.10008.5.1.4.1.1.77.1.5.7": "an en-face image",
    "1.2.840.10008.5.1.4.1.1.77.1.5.8": "a volume of flow",
    "1.2.840.10008.5.1.4.1.1.7": "a screen capture (Secondary Capture)",
    "1.2.840.10008.5.1.4.1.1.104.1": "a report (Encapsulated PDF)",
    "1.2.840.10008.1.3.10": "the directory of a medium (DICOMDIR)",
}
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)}
TAGS = [
    "SOPClassUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDateTime",
    "ContentDate", "Manufacturer", "ManufacturerModelName", "Laterality", "ImageLaterality", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
    "ExtendedOffsetTable", "SpecificCharacterSet",
]  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """How the samples of each frame are stored."""

    syntax: str
    rows: int
    columns: int
    allocated: int
    stored: int
    inverted: bool

    @property
    def bytes_per_frame(self) -> int:
        return self.rows * self.columns * self.allocated // 8


def open_dicom(path: Path) -> Volume:
    """Open a DICOM file of the class Ophthalmic Tomography.

    Raises:
        ImageError: another class, a damaged file, or one that claims more than the limits.
        UserError: pydicom is not installed.
    """
    head = read_span(path, 0, min(path.stat().st_size, MAX_HEADER_BYTES))
    if head[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        raise ImageError("no DICOM file: DICM is not at byte 128")
    with _quiet():
        syntax, header, pixels_at = _header(head)
        layout, count = _layout(syntax, header)
        if syntax in JPEG:
            _decoder(syntax)
        places = frame_spans(path, pixels_at, count, syntax, layout.bytes_per_frame, _offsets(header))
        shared = _laterality(_groups(header, "SharedFunctionalGroupsSequence")[:1], header)
        frames = _frames(header, count, shared)
        series = _series(header)
    return Volume(path, "DICOM", frames, (series,), partial(_read, path, places, layout))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom: its warnings and its log quote values of the header, names among them."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # of its children, too, which `disabled` would not stop
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _header(head: bytes) -> tuple[str, Any, int]:
    """Return transfer syntax, data set and position of the pixels."""
    try:
        from pydicom.filereader import dcmread
    except ImportError:
        raise UserError("reading DICOM needs pydicom; install it with: pip install 'octdino[clinic]'") from None
    syntax = transfer_syntax(head)
    if syntax not in {IMPLICIT, EXPLICIT, BIG_ENDIAN, RLE} | JPEG:
        # Among the others is the deflated one, whose header unpacks to any size.
        raise ImageError(f"transfer syntax {_uid(syntax)}; expected uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000")
    file = io.BytesIO(head)
    header = dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
    kind = str(header.get("SOPClassUID", ""))
    if kind != TOMOGRAPHY:
        raise ImageError(f"{OTHERS.get(kind, f'SOP class {_uid(kind)}')}; expected B-scans (Ophthalmic Tomography)")
    return syntax, header, file.tell()


def _uid(text: str) -> str:
    """Return a UID for a message: digits and dots only."""
    return text if re.fullmatch(r"[0-9.]{1,64}", text) else "unknown"


def _layout(syntax: str, header: Any) -> tuple[_Layout, int]:
    rows, columns, count = (_whole(header, name, 1) for name in ("Rows", "Columns", "NumberOfFrames"))
    check_frame(columns, rows)
    check_count(count)
    allocated, samples = _whole(header, "BitsAllocated", 8), _whole(header, "SamplesPerPixel", 1)
    stored = _whole(header, "BitsStored", allocated)
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"{samples} samples per pixel; expected gray B-scans (MONOCHROME1 or MONOCHROME2)")
    if allocated not in (8, 16) or not 1 <= stored <= allocated or _whole(header, "HighBit", stored - 1) != stored - 1:
        raise ImageError(f"{stored} of {allocated} bits per sample; expected 8 or 16 with the used ones at the low end")
    if _whole(header, "PixelRepresentation", 0):
        raise ImageError("signed pixels; expected unsigned ones, as Ophthalmic Tomography has")
    return _Layout(syntax, rows, columns, allocated, stored, photometric == "MONOCHROME1"), count


def _whole(header: Any, name: str, default: int) -> int:
    value = header.get(name)
    try:
        return default if value is None or value == "" else int(value)
    except (TypeError, ValueError):
        raise ImageError(f"{name} is not a whole number") from None


def _offsets(header: Any) -> bytes:
    table = header.get("ExtendedOffsetTable")
    return table if isinstance(table, bytes) else b""


def _groups(header: Any, name: str) -> list[Any]:
    return list(header.get(name) or [])


def _frames(header: Any, count: int, shared: str | None) -> tuple[FrameInfo, ...]:
    """Return laterality and position of each frame: its place in the stack where all frames name different ones."""
    groups = _groups(header, "PerFrameFunctionalGroupsSequence")
    groups = groups if len(groups) == count else []
    places = [_stack_position(group) for group in groups]
    if len(set(places)) != count or sorted(places) != list(range(1, count + 1)):
        places = list(range(1, count + 1))
    sides = [_laterality([group], None) or shared for group in groups] or [shared] * count
    return tuple(FrameInfo(1, place, side) for place, side in zip(places, sides, strict=True))


def _stack_position(group: Any) -> int:
    content = group.get("FrameContentSequence")
    value = content[0].get("InStackPositionNumber") if content else None
    return int(value) if isinstance(value, int) else 0


def _laterality(groups: list[Any], header: Any) -> str | None:
    found = [anatomy[0].get("FrameLaterality") for group in groups if (anatomy := group.get("FrameAnatomySequence"))]
    found += [header.get(name) for name in ("ImageLaterality", "Laterality")] if header is not None else []
    return next(({"R": "OD", "L": "OS"}[str(side)] for side in found if str(side) in ("R", "L")), None)


def _series(header: Any) -> SeriesInfo:
    number, name, birth = (str(header.get(tag) or "") for tag in ("PatientID", "PatientName", "PatientBirthDate"))
    days = [str(header.get(tag) or "") for tag in ("StudyDate", "SeriesDate", "AcquisitionDateTime", "ContentDate")]
    day = next((day for day in days if re.match(r"\d{8}", day)), "")
    visit = date_of(int(day[:4]), int(day[4:6]), int(day[6:8])) if day else None
    device = device_name(*(str(header.get(tag) or "") for tag in ("Manufacturer", "ManufacturerModelName")))
    return SeriesInfo(*identity(number, name.replace("^", " "), birth), visit, device)


def _read(path: Path, places: list[list[Span]], layout: _Layout, index: int) -> np.ndarray:
    content = b"".join(read_span(path, *span) for span in places[index])
    if layout.syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN):
        order = ">" if layout.syntax == BIG_ENDIAN else "<"
        samples = np.frombuffer(content, f"{order}u{layout.allocated // 8}").reshape(layout.rows, layout.columns)
    else:
        samples = _decompress(content, layout)
    if layout.allocated == 8 and layout.stored == 8:
        return np.bitwise_not(samples) if layout.inverted else samples.copy()
    # The used bits fill the range, so that 12 of 16 bits are as bright as 8 of 8.
    mask = (1 << layout.stored) - 1
    used = samples.astype(np.uint16) & np.uint16(mask)
    used = np.uint16(mask) - used if layout.inverted else used
    if layout.stored <= 8:
        return (used << np.uint16(8 - layout.stored)).astype(np.uint8)
    return (used << np.uint16(16 - layout.stored)).astype(np.uint16)


def _decoder(syntax: str) -> Any:
    """Return pydicom's decoder of a transfer syntax.

    Raises:
        UserError: what it decodes with is not installed.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    decoder = get_decoder(UID(syntax))
    if not decoder.is_available:
        raise UserError("decoding this DICOM needs python-gdcm; install it with: pip install 'octdino[clinic]'")
    return decoder


def _decompress(content: bytes, layout: _Layout) -> np.ndarray:
    """Decode one compressed frame with what pydicom finds: Pillow, GDCM, or its own RLE."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    if layout.syntax == RLE:
        segments = struct.unpack("<I", content[:4].ljust(4, b"\0"))[0]
        if segments != layout.allocated // 8:
            raise ImageError(f"an RLE frame of {segments} segments; expected {layout.allocated // 8}")
    else:
        check_stream(content, layout.columns, layout.rows)
    frame = Dataset()
    frame.file_meta = FileMetaDataset()
    frame.file_meta.TransferSyntaxUID = UID(layout.syntax)
    frame.Rows, frame.Columns, frame.NumberOfFrames, frame.SamplesPerPixel = layout.rows, layout.columns, 1, 1
    frame.BitsAllocated, frame.BitsStored, frame.HighBit = layout.allocated, layout.stored, layout.stored - 1
    frame.PixelRepresentation, frame.PhotometricInterpretation = 0, "MONOCHROME2"
    frame.PixelData = encapsulate([content + b"\0" * (len(content) % 2)], has_bot=False)
    frame["PixelData"].is_undefined_length = True
    with _quiet():
        samples, _ = _decoder(layout.syntax).as_array(frame, raw=True)
    if samples.shape != (layout.rows, layout.columns) or samples.dtype.kind != "u":
        raise ImageError("a compressed frame of another size than its header says")
    found: np.ndarray = samples
    return found
