"""Sources that map a scan's path to its image: files below a folder, members of archives, rows of arrays.

The decoding processes call a source, so it can be pickled and opens its files itself.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

EncodedImage = Path | bytes | np.ndarray  # an image file, its content, or decoded uint8 [H, W] or [H, W, 3]
ImageSource = Callable[[str], EncodedImage]

# The errors that libraries raise at a damaged file or archive member.
DAMAGED = (
    OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, MemoryError, zlib.error, struct.error,
    BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class FolderSource:
    """Image source: files below a folder."""

    root: Path

    def __call__(self, path: str) -> Path:
        return self.root / path
