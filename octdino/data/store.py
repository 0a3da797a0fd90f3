"""The store: one HDF5 file of the accepted scans, in manifest order.

`images` uint8 [N, C, H, W], chunked and uncompressed so that it is read once, sequentially, at disk speed;
`scan_id` [N]; `moments` float64 [N, 2, C], each image's mean and mean square in [0, 1], so that the statistics of any
set of training patients cost nothing; `boxes` int32 [N, 4], top, left, height and width of what was kept of the
original picture, in its pixels, so that masks follow a crop; attributes `mean`, `std` (training patients of fold 0),
`source` (content hash), `exclusive` (whether each labelled scan has exactly one label), `exclusive_from` (what says so:
`setting`, `cohort` or `table`), `patients` (known, unknown or none; see `octdino.data.sampling_units`), `settings`
(JSON, the cohort stage's), `version`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from octdino.config.cohort import ImageSettings
from octdino.data.atomic_files import DeferringFile, replacing
from octdino.data.schemas.metadata import StoreAttributes
from octdino.errors import UserError

VERSION = 1
CHUNK = 64  # images
CHECKED = 32  # images of each reading whose moments are compared with those that were written
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Store:
    """A store read into memory.

    Attributes:
        images: uint8 [N, C, H, W].
        scan_id: [N].
        moments: float64 [N, 2, C].
        boxes: int32 [N, 4], top, left, height, width in the original picture.
        attributes: mean, std, source, exclusive, exclusive_from, settings, version.
    """

    images: np.ndarray
    scan_id: list[str]
    moments: np.ndarray
    boxes: np.ndarray
    attributes: dict[str, Any]


def statistics(moments: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel over all pixels of the images with these moments [n, 2, C], in [0, 1]."""
    mean, square = moments.mean(axis=0)
    return mean.tolist(), np.sqrt(np.maximum(square - mean**2, 1e-12)).tolist()


def image_moments(image: np.ndarray) -> np.ndarray:
    """Mean and mean square a channel of one uint8 image [C, H, W], in [0, 1]: float64 [2, C]."""
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
    levels = np.arange(256) / 255
    moments: np.ndarray = np.stack([counts @ levels, counts @ levels**2]) / image[0].size
    return moments


def content_hash(image: ImageSettings, paths: Iterable[str], pixel_hashes: Iterable[str]) -> str:
    """The store's `source`: SHA-256 of what went in, in order, and of how a file became an image.

    The manifest has the same paths and pixel hashes, so that it is known whether the two belong together.
    """
    found = hashlib.sha256(json.dumps(image.model_dump(mode="json"), sort_keys=True).encode())
    for path, pixels in zip(paths, pixel_hashes, strict=True):
        found.update(f"\n{path}\n{pixels}".encode())
    return found.hexdigest()


@dataclass(frozen=True)
class Header:
    """A store without its images; the attributes of the class are those of `Store`, of all N scans.

    Attributes:
        shape: of the images, (N, C, H, W).
    """

    shape: tuple[int, int, int, int]
    scan_id: list[str]
    moments: np.ndarray
    boxes: np.ndarray
    attributes: dict[str, Any]

    def checked_attributes(self, path: Path) -> StoreAttributes:
        """The attributes by their schema.

        Raises:
            UserError: one is missing or not what it may be.
        """
        values = dict(self.attributes)
        try:
            values["settings"] = json.loads(str(values.get("settings", "{}")))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: attribute settings: no JSON: {error}") from None
        return StoreAttributes.parse(values, f"{path}: attributes")


def read_header(path: Path) -> Header:
    """Read all of a store but its images.

    Raises:
        UserError: no such file, or not a store of this version.
    """
    with _opened(path) as file:
        ids = [str(name) for name in file["scan_id"].asstr()[:]]
        attributes = {key: _plain(value) for key, value in file.attrs.items()}
        return Header(file["images"].shape, ids, file["moments"][:], file["boxes"][:], attributes)


def read_images(path: Path, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Read the images `rows` (ascending) of a store, sequentially: uint8 [n, C, H, W].

    Raises:
        UserError: as `read_header`; or an image is not the one whose moments the store has.
    """
    wanted = np.asarray(rows, dtype=np.int64)
    with _opened(path) as file:
        out = np.empty((len(wanted), *file["images"].shape[1:]), np.uint8)
        _read_sequentially(file["images"], wanted, out)
        moments = file["moments"][:][wanted]
    for place in np.unique(np.linspace(0, len(wanted) - 1, min(CHECKED, len(wanted))).astype(int)):
        if not np.allclose(image_moments(out[place]), moments[place], rtol=0, atol=1e-9):
            raise UserError(
                f"{path}: image {wanted[place]} is not the one that was written there; make the store again"
            )
    return out


def read_store(path: Path, rows: Sequence[int] | np.ndarray | None = None) -> Store:
    """Read a store, or the images `rows` of it (ascending), sequentially.

    Raises:
        UserError: as `read_header`.
    """
    header = read_header(path)
    wanted = np.arange(header.shape[0]) if rows is None else np.asarray(rows, dtype=np.int64)
    ids = [header.scan_id[row] for row in wanted]
    return Store(read_images(path, wanted), ids, header.moments[wanted], header.boxes[wanted], header.attributes)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise UserError(f"{path}: no such store; `octdino cohort` makes it")
    try:
        with h5py.File(path, "r") as file:
            _check_layout(path, file)
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:  # what h5py makes of damaged bytes
        raise UserError(f"{path}: cannot be read as HDF5: {error}") from None


def _check_layout(path: Path, file: h5py.File) -> None:
    """Check that the datasets and attributes of a store are there, as `StoreWriter` lays them out.

    All bytes of a dataset must be in this file: none is allocated for a shape without data, and none is read from
    another file.

    Raises:
        UserError: names what is missing or otherwise.
    """
    version = file.attrs.get("version")
    if not isinstance(version, np.integer) or version != VERSION:
        raise UserError(f"{path}: store version {version}, expected {VERSION}; make it again")
    if missing := [name for name in ("mean", "std", "source") if name not in file.attrs]:
        raise UserError(f"{path}: no attribute {', '.join(missing)}; make the store again")
    data: dict[str, Any] = {name: own_dataset(file, name) for name in ("images", "scan_id", "moments", "boxes")}
    if missing := [name for name, dataset in data.items() if dataset is None]:
        raise UserError(f"{path}: no dataset {', '.join(missing)} in the file; make the store again")
    images, text = data["images"], h5py.check_string_dtype(data["scan_id"].dtype)
    count, channels = images.shape[:2] if images.ndim == 4 else (0, 0)
    mean, std = (np.asarray(file.attrs[name]) for name in ("mean", "std"))
    forms = (
        ("images", images.ndim == 4 and images.dtype == np.uint8, "uint8 [N, C, H, W]"),
        ("scan_id", data["scan_id"].shape == (count,) and text is not None and text.length, f"{count} texts"),
        ("moments", _is(data["moments"], np.float64, count, 2, channels), f"float64 [{count}, 2, {channels}]"),
        ("boxes", _is(data["boxes"], np.int32, count, 4), f"int32 [{count}, 4]"),
        ("mean and std", _is(mean, np.float64, channels) and _is(std, np.float64, channels), f"float64 [{channels}]"),
        ("source", isinstance(file.attrs["source"], str), "text"),
    )
    if wrong := next((form for form in forms if not form[1]), None):
        raise UserError(f"{path}: {wrong[0]}: expected {wrong[2]}; make the store again")
    for name, dataset in data.items():
        if dataset.id.get_storage_size() < dataset.nbytes:
            raise UserError(f"{path}: {name}: not all of its bytes are in the file; make the store again")


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset | None:
    """The dataset whose bytes are in this file, and not in one that it links to."""
    if name not in file or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    data = file[name]
    return data if isinstance(data, h5py.Dataset) and not data.external and not data.is_virtual else None


def _is(data: Any, dtype: Any, *shape: int) -> bool:
    return bool(data.dtype == dtype and data.shape == shape)


def _read_sequentially(images: Any, wanted: np.ndarray, out: np.ndarray) -> None:
    """Whole blocks of chunks in file order; picking single rows through HDF5 is many times slower."""
    block = 16 * CHUNK
    for start in range(0, len(images), block):
        stop = min(start + block, len(images))
        low, high = np.searchsorted(wanted, [start, stop])
        if high - low == stop - start:  # all of it: straight to its place
            images.read_direct(out, np.s_[start:stop], np.s_[low:high])
        elif high > low:
            out[low:high] = images[start:stop][wanted[low:high] - start]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


class StoreWriter:
    """Writes a store image by image at constant memory; it appears under its name only when closed without an error.

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
        """Add one image, uint8 [C, H, W]; `moments` where a worker has computed them already.

        `box` is top, left, height, width of what was kept of the original picture; the whole image if not given.
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
        """Of all images appended so far, float64 [n, 2, C]."""
        return np.stack(self._moments) if self._moments else np.zeros((0, 2, self._shape[0]))

    def finish(self, keep: np.ndarray, attributes: dict[str, Any]) -> None:
        """Keep only the appended positions `keep` (ascending), write ids, moments and attributes."""
        self._flush()
        for start in range(0, len(keep), CHUNK):  # moves kept images down over dropped ones, in place
            chosen = keep[start : start + CHUNK]
            if not np.array_equal(chosen, np.arange(start, start + len(chosen))):
                runs = np.split(chosen, 1 + np.flatnonzero(np.diff(chosen) > 1))
                self._images[start : start + len(chosen)] = np.concatenate(
                    [self._images[run[0] : run[-1] + 1] for run in runs]
                )
        self._images.resize(len(keep), axis=0)
        ids = [self._ids[i].encode() for i in keep]  # of fixed length: what HDF5 keeps for others is not reproducible
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
