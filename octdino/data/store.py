"""The store, scans.h5: one HDF5 file of the accepted scans in manifest order; `store_writer` writes it.

`images` uint8 [N, C, H, W], chunked and uncompressed so that it is read once, sequentially, at disk speed;
`scan_id` [N]; `moments` float64 [N, 2, C], each image's mean and mean square in [0, 1], so that the statistics of any
set of training patients cost nothing; `boxes` int32 [N, 4], top, left, height and width of what was kept of the
original image, in its pixels, so that masks follow a crop; attributes `mean`, `std` (training patients of fold 0),
`source` (content hash), `exclusive` (whether each labeled scan has exactly one label), `exclusive_from` (what says so:
`setting`, `cohort` or `table`), `patients` (known, unknown or none; see `octdino.data.sampling_units`), `settings`
(JSON, the cohort stage's), `version`; with protocol `published` also `published_leak` (JSON: scans, patients); of a
user's own scans `decisions` (JSON: sentences about what columns and folders were taken for).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from octdino.config.cohort import ImageSettings
from octdino.data.schemas.metadata import StoreAttributes
from octdino.errors import UserError

VERSION = 1
CHUNK = 64  # images
OBJECTS = {"settings", "published_leak", "decisions"}  # attributes that are JSON text
CHECKED = 32  # images per read whose moments are compared with the stored ones


def statistics(moments: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel over all pixels of the images with these moments [n, 2, C], in [0, 1]."""
    mean, square = moments.mean(axis=0)
    return mean.tolist(), np.sqrt(np.maximum(square - mean**2, 1e-12)).tolist()


def image_moments(image: np.ndarray) -> np.ndarray:
    """Mean and mean square per channel of one uint8 image [C, H, W], in [0, 1]: float64 [2, C]."""
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
    levels = np.arange(256) / 255
    moments: np.ndarray = np.stack([counts @ levels, counts @ levels**2]) / image[0].size
    return moments


def content_hash(image: ImageSettings, paths: Iterable[str], pixel_hashes: Iterable[str]) -> str:
    """The store's `source`: SHA-256 over the image settings and the paths and pixel hashes of all scans in order.

    The manifest has the same paths and pixel hashes, so its hash shows whether store and manifest belong together.
    """
    found = hashlib.sha256(json.dumps(image.model_dump(mode="json"), sort_keys=True).encode())
    for path, pixels in zip(paths, pixel_hashes, strict=True):
        found.update(f"\n{path}\n{pixels}".encode())
    return found.hexdigest()


@dataclass(frozen=True)
class Header:
    """The content of a store except its images, for all N scans.

    Attributes:
        shape: of the images, (N, C, H, W).
        scan_id: [N].
        moments: float64 [N, 2, C], mean and mean square of each image.
        boxes: int32 [N, 4], top, left, height, width of the kept part of the original image.
        attributes: mean, std, source, exclusive, exclusive_from, patients, version; those of OBJECTS as JSON text.
    """

    shape: tuple[int, int, int, int]
    scan_id: list[str]
    moments: np.ndarray
    boxes: np.ndarray
    attributes: dict[str, Any]

    def checked_attributes(self, path: Path) -> StoreAttributes:
        """The attributes, checked by their schema.

        Raises:
            UserError: one is missing or has a value that is not allowed.
        """
        values = {"settings": "{}", **self.attributes}
        for key in OBJECTS & values.keys():
            try:
                values[key] = json.loads(str(values[key]))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: attribute {key}: no JSON: {error}") from None
        return StoreAttributes.parse(values, f"{path}: attributes")


def read_header(path: Path) -> Header:
    """Read a store except its images.

    Raises:
        UserError: no such file, or not a store of this version.
    """
    with _opened(path) as file:
        ids = [str(name) for name in file["scan_id"].asstr()[:]]
        attributes = {key: _plain(value) for key, value in file.attrs.items()}
        return Header(file["images"].shape, ids, file["moments"][:], file["boxes"][:], attributes)


def read_images(path: Path, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Read the images `rows` (ascending; all by default) of a store, sequentially: uint8 [n, C, H, W].

    Raises:
        UserError: as `read_header`; or the moments of an image differ from those in the store.
    """
    with _opened(path) as file:
        wanted = np.arange(len(file["images"])) if rows is None else np.asarray(rows, dtype=np.int64)
        out = np.empty((len(wanted), *file["images"].shape[1:]), np.uint8)
        _read_sequentially(file["images"], wanted, out)
        moments = file["moments"][:][wanted]
    for place in np.unique(np.linspace(0, len(wanted) - 1, min(CHECKED, len(wanted))).astype(int)):
        if not np.allclose(image_moments(out[place]), moments[place], rtol=0, atol=1e-9):
            raise UserError(
                f"{path}: image {wanted[place]} is not the one that was written there; make the store again"
            )
    return out


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
    """Check names, types and shapes of a store's datasets and attributes against what `StoreWriter` writes.

    All bytes of a dataset must be in this file: no memory is allocated for a shape without data, and nothing is read
    from another file.

    Raises:
        UserError: a dataset or attribute is missing or has another type or shape; it names which.
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
    """The dataset, if its bytes are in this file and not in a linked one."""
    if name not in file or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    data = file[name]
    return data if isinstance(data, h5py.Dataset) and not data.external and not data.is_virtual else None


def _is(data: Any, dtype: Any, *shape: int) -> bool:
    return bool(data.dtype == dtype and data.shape == shape)


def _read_sequentially(images: Any, wanted: np.ndarray, out: np.ndarray) -> None:
    """Read whole blocks of chunks in file order; selecting single rows through HDF5 is many times slower."""
    block = 16 * CHUNK
    for start in range(0, len(images), block):
        stop = min(start + block, len(images))
        low, high = np.searchsorted(wanted, [start, stop])
        if high - low == stop - start:  # the whole block: read into place
            images.read_direct(out, np.s_[start:stop], np.s_[low:high])
        elif high > low:
            out[low:high] = images[start:stop][wanted[low:high] - start]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
