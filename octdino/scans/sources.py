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

# Decoded: uint8, or uint16 for one channel.
EncodedImage = Path | bytes | np.ndarray  # an image file, its content, or decoded [H, W] or [H, W, 3]
ImageSource = Callable[[str], EncodedImage]

# The errors that libraries raise at a damaged file or archive member.
DAMAGED = (
    OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, MemoryError, zlib.error, struct.error,
    BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class FolderSource:
    """Image source: files below a folder; `path#N` is B-scan N of a clinical file, unless a file has that very name."""

    root: Path

    def __call__(self, path: str) -> EncodedImage:
        file = self.root / path
        if "#" not in path or file.exists():
            return file
        from octdino.scans.volumes.registry import read_frame, split_address  # the readers read images, too

        name, index = split_address(path)
        return file if index is None else read_frame(self.root / name, index)
