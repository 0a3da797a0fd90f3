"""Writing the HDF5 store scans.h5; `octdino.data.store` describes its layout and reads it."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from octdino.data.atomic_files import DeferringFile, replacing
from octdino.data.store import CHUNK, VERSION, image_moments

Box = tuple[int, int, int, int]  # top, left, height, width


class StoreWriter:
    """Writer of a store, image by image at constant memory; the file appears only when closed without an error.

    >>> with StoreWriter(path, channels=1, size=(224, 224)) as writer:
    ...     writer.append(image, "scan-1")           # uint8 [C, H, W]
    ...     writer.finish(keep, {"source": "..."})   # the appended positions to keep, and the attributes
    """

    def __init__(self, path: Path, channels: int, size: tuple[int, int]) -> None:
        self._replacing = replacing(path)
        self._shape = (channels, *size)

    def __enter__(self) -> Self:
        temporary = self._replacing.__enter__()
        try:
            self._raw = DeferringFile(temporary)  # HDF5 whose writes fail ends the process later
        except OSError as error:
            self._replacing.__exit__(OSError, error)
            raise
        self._file = h5py.File(self._raw, "w", libver="latest")
        shape = self._shape
        self._images = self._file.create_dataset(
            "images", (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(CHUNK, *shape)
        )
        self._buffer: list[np.ndarray] = []
        self._ids: list[str] = []
        self._moments: list[np.ndarray] = []
        self._boxes: list[Box] = []
        return self

    def append(
        self, image: np.ndarray, scan_id: str, moments: np.ndarray | None = None, box: Box | None = None
    ) -> None:
        """Append one image, uint8 [C, H, W].

        Args:
            moments: float64 [2, C], if already computed.
            box: top, left, height, width of the kept part of the original image; the whole image by default.
        """
        assert image.shape == self._shape, (image.shape, self._shape)
        assert image.dtype == np.uint8, image.dtype
        self._buffer.append(image)
        self._ids.append(scan_id)
        self._moments.append(image_moments(image) if moments is None else moments)
        self._boxes.append((0, 0, *self._shape[1:]) if box is None else box)
        if len(self._buffer) == CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            done = len(self._images)
            self._images.resize(done + len(self._buffer), axis=0)
            self._images[done:] = np.stack(self._buffer)
            self._buffer.clear()
            self._raw.check()

    @property
    def moments(self) -> np.ndarray:
        """The moments of all images appended so far, float64 [n, 2, C]."""
        return np.stack(self._moments) if self._moments else np.zeros((0, 2, self._shape[0]))

    def finish(self, keep: np.ndarray, attributes: dict[str, Any]) -> None:
        """Keep only the appended images at positions `keep` (ascending); write ids, moments and attributes."""
        self._flush()
        for start in range(0, len(keep), CHUNK):  # moves kept images down over dropped ones, in place
            chosen = keep[start : start + CHUNK]
            if not np.array_equal(chosen, np.arange(start, start + len(chosen))):
                runs = np.split(chosen, 1 + np.flatnonzero(np.diff(chosen) > 1))
                self._images[start : start + len(chosen)] = np.concatenate(
                    [self._images[run[0] : run[-1] + 1] for run in runs]
                )
        self._images.resize(len(keep), axis=0)
        ids = [self._ids[i].encode() for i in keep]  # fixed length: variable is not reproducible
        longest = max(map(len, ids), default=1)
        self._file.create_dataset("scan_id", data=ids, dtype=h5py.string_dtype("utf-8", longest))
        self._file["moments"] = self.moments[keep]
        self._file["boxes"] = np.array(self._boxes, dtype=np.int32).reshape(-1, 4)[keep]
        for key, value in {**attributes, "version": VERSION}.items():
            self._file.attrs[key] = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._raw.close()
        refused = self._raw.error  # an OSError of the block, such as of an image that it reads, is not the store's
        self._replacing.__exit__(kind if refused is None else OSError, refused)
