"""Where a cohort's pictures lie: files below a folder, members of archives, rows of arrays.

A source is asked in the processes that decode, so it can be pickled and opens what it needs itself.
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

# What reading a damaged file or a damaged member of an archive raises, of many libraries.
DAMAGED = (
    OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, MemoryError, zlib.error, struct.error,
    BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class FolderSource:
    """Files below a folder."""

    root: Path

    def __call__(self, path: str) -> Path:
        return self.root / path
