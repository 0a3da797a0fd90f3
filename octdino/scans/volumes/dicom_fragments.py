"""Where the frames of a DICOM file are: its transfer syntax, and spans of bytes, found without reading a pixel."""

import struct
from pathlib import Path

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.volume import MAX_FRAMES, read_span

Span = tuple[int, int]  # start and size in bytes

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
NATIVE = (IMPLICIT, "1.2.840.10008.1.2.1", BIG_ENDIAN)
UNDEFINED = 0xFFFFFFFF
ITEM, DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
MAX_FRAGMENTS = 16 * MAX_FRAMES
ENDS = (b"\xff\xd9", b"\xff\xd9\0")  # of a JPEG or JPEG 2000 stream, with its padding

META_AT = 132
LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


def transfer_syntax(head: bytes) -> str:
    """Return the transfer syntax of the file's meta information, which is always explicit and little-endian.

    Found before pydicom sees the file: it would unpack a deflated one as a whole.
    """
    place = META_AT
    while place + 12 <= len(head):
        group, element, representation, length = struct.unpack_from("<2H2sH", head, place)
        if group != 2:
            break
        place += 8
        if representation in LONG:
            (length,) = struct.unpack_from("<I", head, place)
            place += 4
        if element == 0x10:
            return head[place : place + length].rstrip(b"\0 ").decode("latin-1")
        place += length
    return IMPLICIT


def frame_spans(
    path: Path, start: int, count: int, syntax: str, bytes_per_frame: int, extended: bytes
) -> list[list[Span]]:
    """Return the spans of each frame, one or several fragments.

    Args:
        start: position of the pixels' element.
        count: number of frames by the header.
        extended: content of the header's Extended Offset Table; empty if there is none.

    Raises:
        ImageError: no pixels, fewer than the header says, or fragments that belong to no frame.
    """
    content, length = _element(path, start, syntax)
    if syntax in NATIVE:
        if length < count * bytes_per_frame:
            raise ImageError(f"truncated: {length:,} bytes of pixels; its header says {count * bytes_per_frame:,}")
        return [[(content + n * bytes_per_frame, bytes_per_frame)] for n in range(count)]
    if length != UNDEFINED:
        raise ImageError("compressed pixels of defined length; expected fragments")
    table, fragments = _fragments(path, content)
    if len(fragments) == count:
        return [[fragment] for fragment in fragments]
    if len(fragments) < count:
        raise ImageError(f"truncated: {len(fragments)} fragments; its header says {count} frames")
    starts = _starts(fragments, extended or table, "<Q" if extended else "<I", count)
    return _grouped(path, fragments, starts, count)


def _element(path: Path, start: int, syntax: str) -> Span:
    """Return the position and the length of the pixels' value."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    head = read_span(path, start, 8)
    if struct.unpack(f"{order}2H", head[:4]) != (0x7FE0, 0x0010):
        raise ImageError("no pixels after the header, or a header that is too long")
    if syntax == IMPLICIT:
        place, length = start + 8, struct.unpack("<I", head[4:])[0]
    else:
        place, length = start + 12, struct.unpack(f"{order}I", read_span(path, start + 8, 4))[0]
    if length != UNDEFINED and place + length > path.stat().st_size:
        raise ImageError(f"truncated: pixels to byte {place + length:,} of {path.stat().st_size:,}")
    return place, length


def _fragments(path: Path, place: int) -> tuple[bytes, list[Span]]:
    """Return the Basic Offset Table and the fragments after it."""
    found: list[Span] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        while len(found) <= MAX_FRAGMENTS:
            file.seek(place)
            head = file.read(8)
            if len(head) < 8:
                break  # some writers leave the delimiter out
            group, element, length = struct.unpack("<2HI", head)
            if (group, element) == DELIMITER:
                break
            if (group, element) != ITEM or place + 8 + length > size:
                raise ImageError("truncated or damaged fragments of compressed pixels")
            found.append((place + 8, length))
            place += 8 + length
        else:
            raise ImageError(f"more than {MAX_FRAGMENTS:,} fragments")
    if not found:
        raise ImageError("no fragments of compressed pixels")
    table = read_span(path, *found[0]) if found[0][1] <= 4 * MAX_FRAMES else b""
    return table, found[1:]


def _starts(fragments: list[Span], table: bytes, layout: str, count: int) -> set[int]:
    """Return the fragments, by number, that begin a frame as an offset table says; empty without one."""
    if len(table) != count * struct.calcsize(layout):
        return set()
    origin = fragments[0][0] - 8  # offsets count from the first item after the table
    numbers = {place - 8 - origin: number for number, (place, _) in enumerate(fragments)}
    offsets = [offset for (offset,) in struct.iter_unpack(layout, table)]
    if any(offset not in numbers for offset in offsets) or offsets != sorted(set(offsets)) or offsets[0]:
        raise ImageError("a damaged table of offsets")
    return {numbers[offset] for offset in offsets}


def _grouped(path: Path, fragments: list[Span], starts: set[int], count: int) -> list[list[Span]]:
    """Join fragments to frames: by the offset table, or else where a stream has its end marker."""
    frames: list[list[Span]] = []
    ended = True
    for number, (place, length) in enumerate(fragments):
        if number in starts if starts else ended:
            frames.append([])
        frames[-1].append((place, length))
        if not starts:
            ended = count > 1 and length > 2 and read_span(path, place + length - 3, 3).endswith(ENDS)
    if len(frames) != count:
        raise ImageError(f"{len(frames)} frames in {len(fragments)} fragments; its header says {count}")
    return frames
