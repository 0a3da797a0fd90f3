"""Reading of untrusted image files: four formats, regular files only, bounded memory.

Pillow determines the format by a file's content and not by its name, so that an EPS file called `x.png` would start
Ghostscript. A file's header is checked before a pixel is decoded.
"""

import io
import stat
import warnings
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from octdino.errors import one_line

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# 8192 x 4096, four times the largest B-scans (4096 A-scans of 2048 px) and 4K screenshots. Decoding takes up to 20
# bytes per pixel, so that eight processes stay within the 8 GB of the cohort rule.
MAX_PIXELS = 2**25
MAX_BYTES = 4 * MAX_PIXELS  # of the encoded file; uncompressed RGBA of MAX_PIXELS has as many
MAX_JPEG_SCANS = 100  # each is a pass over the whole image; encoders write about ten
PIXELS = {  # Pillow's modes in words
    "1": "1-bit", "L": "8-bit gray", "LA": "8-bit gray with transparency", "P": "palette", "RGB": "8-bit RGB",
    "RGBA": "8-bit RGB with transparency", "CMYK": "8-bit CMYK", "YCbCr": "8-bit YCbCr", "F": "32-bit float",
}  # fmt: skip
ORIENTATION = 0x0112  # EXIF
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF


class ImageError(ValueError):
    """An image file that is not read: no image, damaged, or refused; the message is one line with the reason."""


def read_image(source: Path | bytes | IO[bytes]) -> Image.Image:
    """Decode an image file, its content or an open one, rotated by its EXIF orientation.

    Raises:
        ImageError: another format than `FORMATS`, no regular file, too large, damaged, or more than one image.
        FileNotFoundError, PermissionError: as the file system says.
    """
    try:
        if isinstance(source, Path | bytes):
            check_file(source)
        with warnings.catch_warnings():  # about sizes that are refused here, and metadata that is not used
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                _check_header(image, source)
                image.load()
                if image.getexif().get(ORIENTATION, 1) == 1:
                    return image
                return ImageOps.exif_transpose(image)
    except (FileNotFoundError, PermissionError, ImageError):
        raise
    except UnidentifiedImageError:
        raise ImageError("no known image format; expected PNG, JPEG, TIFF or BMP") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise errors of many kinds at damaged bytes
        raise ImageError(one_line(error)) from error


def describe_image(source: Path | bytes) -> str:
    """Return format and pixels of an image by its header, such as `JPEG, 8-bit gray`; empty if it cannot be read."""
    try:
        check_file(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                deep = "16-bit gray" if image.mode.startswith("I") else image.mode
                return f"{image.format}, {PIXELS.get(image.mode, deep)}"
    except Exception:  # the decoder says why when the image is read
        return ""


def check_file(source: Path | bytes, most: int = MAX_BYTES) -> None:
    """Check that a file may be read as a whole: a FIFO would wait for a writer, a device never ends.

    Raises:
        ImageError: no regular file (nor a link to one), empty, or of more than `most` bytes.
        OSError: as the file system says.
    """
    if isinstance(source, bytes):
        size = len(source)
    else:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{_kind(status.st_mode)}; expected a regular file")
        size = status.st_size
    if not size:
        raise ImageError("the file is empty")
    if size > most:
        raise ImageError(f"{size:,} bytes; expected at most {most:,}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _check_header(image: Image.Image, source: Path | bytes | IO[bytes]) -> None:
    """Refuse what would take too much memory or time to decode, before it is decoded.

    Raises:
        ImageError: too many pixels, too large tiles, several images, or too many scans.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; expected at most {MAX_PIXELS:,} in all")
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    if tile > MAX_PIXELS:  # a tile may be larger than its image, and is decoded as a whole
        raise ImageError(f"tiles of {tile:,} pixels; expected at most {MAX_PIXELS:,}")
    try:
        image.seek(1)  # and not n_frames, which reads the directories of all images
    except EOFError:
        pass
    else:
        raise ImageError("more than one image in the file; expected one")
    if image.info.get("progressive") and isinstance(source, Path | bytes):  # an open one is a TIFF
        content = source if isinstance(source, bytes) else source.read_bytes()
        if (scans := content.count(b"\xff\xda")) > MAX_JPEG_SCANS:
            raise ImageError(f"a JPEG of {scans} passes; expected at most {MAX_JPEG_SCANS}")
