"""Sizes that compressed frames claim: a JPEG or JPEG 2000 stream is decoded only if it has the size of its volume.

A decoder allocates what the stream's own header says, whatever the file around it says.
"""

import io
import struct

import numpy as np
from PIL import Image

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.volume import check_frame

MAX_TILES = 1024  # a decoder takes kilobytes per tile of JPEG 2000, whatever its pixels
JP2_MAGIC = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream and its size marker
# Start of frame: baseline, extended, progressive, lossless, the same with arithmetic coding, and JPEG-LS.
JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB, 0xF7})


def check_stream(content: bytes, width: int, height: int) -> None:
    """Check that a JPEG, JPEG-LS or JPEG 2000 stream is one gray image of this size.

    Raises:
        ImageError: another size, several components, too many tiles, or no such stream.
    """
    if content[:2] == b"\xff\xd8":
        found = _jpeg_size(content)
    elif content.startswith((JP2_MAGIC, CODESTREAM[:2])):
        found = _jpeg2000_size(content)
    else:
        raise ImageError("a compressed frame is neither JPEG nor JPEG 2000")
    if found != (width, height, 1):
        raise ImageError(
            f"a compressed frame of {found[0]} x {found[1]} pixels with {found[2]} components; "
            f"expected {width} x {height} with one"
        )


def jpeg2000(content: bytes, width: int, height: int) -> np.ndarray:
    """Decode a JPEG 2000 stream of one gray image: uint8 or uint16 [H, W].

    Raises:
        ImageError: another size than expected.
    """
    check_frame(width, height)
    check_stream(content, width, height)
    with Image.open(io.BytesIO(content), formats=("JPEG2000",)) as image:
        image.load()
        return np.asarray(image if image.mode.startswith("I;16") else image.convert("L"))


def _jpeg_size(content: bytes) -> tuple[int, int, int]:
    place = 2
    while place + 10 <= len(content):
        if content[place] != 0xFF:
            break
        marker = content[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        (length,) = struct.unpack_from(">H", content, place + 2)
        if marker in JPEG_FRAMES:
            _, height, width, components = struct.unpack_from(">BHHB", content, place + 4)
            return width, height, components
        if marker == 0xDA or length < 2:
            break
        place += 2 + length
    raise ImageError("a compressed frame has no JPEG header")


def _jpeg2000_size(content: bytes) -> tuple[int, int, int]:
    place = content.find(CODESTREAM, 0, 4096)
    if place < 0 or len(content) < place + 42:
        raise ImageError("a compressed frame has no JPEG 2000 header")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", content, place + 8
    )
    if not (tile_width and tile_height and left < width and top < height):
        raise ImageError("a compressed frame has a damaged JPEG 2000 header")
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    if tiles > MAX_TILES:
        raise ImageError(f"a compressed frame of {tiles:,} tiles; expected at most {MAX_TILES:,}")
    return width - left, height - top, components
