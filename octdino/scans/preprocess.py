"""Preprocessing of one image file for the store: decode, check, hash, crop, resize, 8 bits.

Color becomes gray by ITU-R 601 luminance; transparency is composited on white, as viewers show it. 16 bits become 8 by
their high byte, so that 65535 is 255 in every image; with `percentiles` the stretch is computed at full depth.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from octdino.config.cohort import ImageSettings
from octdino.errors import one_line
from octdino.scans.image_files import read_image
from octdino.scans.sources import DAMAGED, EncodedImage, ImageSource

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
NARROW = 16 * 256  # 16-bit images darker than this hold 12-bit data: as good as black in 8 bits


@dataclass(frozen=True)
class DecodedScan:
    """A preprocessed scan, or the reason why it was refused.

    Attributes:
        image: uint8 [C, H, W], or None if refused.
        moments: float64 [2, C], mean and mean square in [0, 1]; zeros if refused.
        digest: hash of the decoded pixels before crop and resize; equal for equal pixels in any file format.
        size: width, height of the file's image in pixels.
        box: top, left, height, width of the kept part, in pixels of the file's image.
        reason: a code of REASONS, or empty if accepted.
        detail: explanation of the reason.
        flags: unusual properties of an accepted scan, see the manifest's column.
    """

    image: np.ndarray | None
    moments: np.ndarray
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    reason: str = ""
    detail: str = ""
    flags: str = ""


def decode_scan(path: str | Path, settings: ImageSettings, source: ImageSource = Path) -> DecodedScan:
    """Decode, check and preprocess the image of `path`; a bad image is returned with a reason, not raised."""
    nothing = np.zeros((2, settings.channels))
    try:
        pixels = load_pixels(source(str(path)), settings.channels)
    except FileNotFoundError:
        return DecodedScan(None, nothing, reason="missing_file", detail="the file is gone")
    except PermissionError:
        raise
    except DAMAGED as why:
        return DecodedScan(None, nothing, reason="unreadable", detail=one_line(why))
    size = (pixels.shape[1], pixels.shape[0])
    if pixels.min() == pixels.max():
        return DecodedScan(None, nothing, size=size, reason="constant", detail=f"every pixel is {pixels.flat[0]}")
    digest = digest_of(pixels)
    flags = "narrow_grey" if pixels.dtype == np.uint16 and not settings.percentiles and pixels.max() < NARROW else ""
    gray = to_uint8(pixels, settings.percentiles)
    if gray.min() == gray.max():
        detail = f"every pixel is {gray.flat[0]} in 8 bits; percentiles would stretch it"
        return DecodedScan(None, nothing, size=size, reason="constant", detail=detail)
    box = (0, 0, size[1], size[0])
    if settings.crop == "retina":
        from octdino.scans.retina import retina_box  # SciPy's imports only where they are used

        box = retina_box(gray if gray.ndim == 2 else np.asarray(Image.fromarray(gray).convert("L")))
    top, left, height, width = box
    image = resized(gray[top : top + height, left : left + width], settings.size)
    return DecodedScan(image, _moments(image), digest, size, box, flags=flags)


def load_pixels(encoded: EncodedImage, channels: int) -> np.ndarray:
    """Decode an image: uint8 or uint16 [H, W] for one channel, uint8 [H, W, 3] for three.

    Raises:
        ImageError: as `read_image`.
        ValueError: pixels outside the range of gray levels.
        OSError: the file is gone or may not be read.
    """
    if isinstance(encoded, np.ndarray):
        if encoded.dtype == np.uint16:
            return _in_channels(encoded, channels)
        return np.asarray(Image.fromarray(encoded).convert("L" if channels == 1 else "RGB"))
    return pixels_of(encoded, channels)


def pixels_of(source: Path | bytes | IO[bytes], channels: int) -> np.ndarray:
    """As `load_pixels`, of an image file, its content, or an open one."""
    image = read_image(source)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _in_channels(_deep(np.asarray(image)), channels)
    if "A" in image.mode or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def _in_channels(deep: np.ndarray, channels: int) -> np.ndarray:
    """Return uint16 [H, W] as it is for one channel, as uint8 [H, W, 3] for three."""
    return deep if channels == 1 else np.repeat(to_uint8(deep, None)[:, :, None], 3, axis=2)


def _deep(pixels: np.ndarray) -> np.ndarray:
    """Convert pixels of more than 8 bits to uint16: integers unchanged, floats from 0 to 1 scaled to the full range."""
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # NaN too
            raise ValueError(f"float pixels from {low:g} to {high:g}; expected 0 to 1")
        pixels, high = np.rint(pixels * 65535), 65535
    if not (low >= 0 and high <= 65535):
        raise ValueError(f"pixels from {low:g} to {high:g}; expected 0 to 65535")
    deep: np.ndarray = pixels.astype(np.uint16)
    return deep


def to_uint8(pixels: np.ndarray, percentiles: tuple[float, float] | None) -> np.ndarray:
    """Convert to 8 bits: the high byte of 16, or a contrast stretch between two percentiles of the image."""
    if percentiles:
        low, high = np.percentile(pixels, percentiles)
        if high > low:
            levels = np.arange(np.iinfo(pixels.dtype).max + 1)
            stretched = np.rint((np.clip(levels, low, high) - low) * (255 / (high - low))).astype(np.uint8)
            return _looked_up(stretched, pixels)
    eight: np.ndarray = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return eight


def _looked_up(table: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return `table[pixels]`, row by row to save memory: NumPy converts each index to eight bytes."""
    found = np.empty(pixels.shape, table.dtype)
    for row, target in zip(pixels, found, strict=True):
        target[...] = table[row]
    return found


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [H, W] or [H, W, 3] to uint8 [C, height, width] with an antialiased bilinear (triangle) filter.

    Sharper filters overshoot beside the bright pigment epithelium.
    """
    height, width = size
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    out = np.asarray(image)
    return out[None] if out.ndim == 2 else np.ascontiguousarray(out.transpose(2, 0, 1))


def digest_of(pixels: np.ndarray) -> str:
    """Return the hash of an image: shape, bit depth and pixels."""
    head = f"{pixels.shape}{pixels.dtype.itemsize}".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(pixels).tobytes(), digest_size=16).hexdigest()


def _moments(image: np.ndarray) -> np.ndarray:
    from octdino.data.store import image_moments  # h5py's import stays out of what only decodes

    return image_moments(image)
