"""Sheets of augmented views on the page, one per method: what its networks were trained on."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

QUALITY = 85  # of JPEG; a sheet of large views is several times smaller than as PNG


@dataclass(frozen=True)
class ViewSheet:
    """The sheet of a method's first run: the run, and the image as data URI."""

    run: str
    image: str


def view_sheets(results: Path) -> list[ViewSheet]:
    """Return the sheet of each pretraining method, of its first run that has one; unreadable ones are left out."""
    found: dict[str, ViewSheet] = {}
    for path in sorted(results.glob("pretrain/*/*/*/views.png")):
        method, backbone, run = path.parent.parts[-3:]
        if method not in found and (image := _as_uri(path)):
            found[method] = ViewSheet(f"{method} · {backbone} · {run}", image)
    return list(found.values())


def _as_uri(path: Path) -> str:
    """Return the image as JPEG in a data URI; empty if it cannot be read."""
    buffer = io.BytesIO()
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.convert("L" if image.mode == "L" else "RGB").save(buffer, "JPEG", quality=QUALITY)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
