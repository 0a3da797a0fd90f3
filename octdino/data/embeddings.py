"""Embeddings: one HDF5 file with the features of every scan of a store, written and read in one place.

`features` float32 [N, D] in manifest order; `scan_id` [N]; attributes as `EmbeddingAttributes` names them, mappings as
JSON, null as an empty attribute.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import h5py
import numpy as np
from pydantic import Field, model_validator

from octdino.config.names import Readout
from octdino.data.atomic_files import DeferringFile, replacing
from octdino.data.cohort_reader import Cohort
from octdino.data.disk_space import SPARE, check_disk
from octdino.data.schemas.metadata import Count, Metadata, Positive, Sha256
from octdino.data.store import own_dataset
from octdino.errors import UserError

BLOCK = 8192  # scans that are read at a time
AGAIN = "run the embed stage again"


class EmbeddingAttributes(Metadata):
    """The attributes of embeddings.h5.

    Attributes:
        version: of the file's layout.
        init: scratch, imagenet or a pretraining run's name.
        backbone: its name in results/; `model` is what timm made of it.
        readout: which features of the network they are.
        pooled: number of the last columns, which are the pooled features; those of earlier layers stand before them.
        size: px, side of the input.
        channels, mean, std: of the input; the latter two per channel, of pixels in [0, 1].
        fold: whose training patients gave mean and std.
        seed: of the pretraining run, or of random weights.
        source: content hash of the store.
        pretrained: SHA-256 of the file of weights; None where they come from no file.
        settings: of the embed stage.
        octdino: version of the program and of the stage.
    """

    version: Literal[2] = 2
    init: str
    backbone: str
    model: dict[str, Any]
    readout: Readout
    pooled: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1)]
    mean: list[float]
    std: list[Positive]
    fold: Count
    seed: Count
    source: str
    pretrained: Sha256 | None
    settings: dict[str, Any]
    octdino: str

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> Self:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(f"{name}: {len(getattr(self, name))} values for {self.channels} channel(s)")
        return self


@dataclass(frozen=True)
class Embeddings:
    """Features that were read and checked.

    Attributes:
        path: of the file.
        features: float32 [n, D] of the scans that were asked for.
        attributes: how they were made.
    """

    path: Path
    features: np.ndarray
    attributes: EmbeddingAttributes

    @property
    def pooled(self) -> np.ndarray:
        """float32 [n, d]: only the pooled features, for cosine similarities: scales of earlier layers differ."""
        return self.features[:, -self.attributes.pooled :]

    def check_run(self, init: str, backbone: str, fold: int) -> None:
        """Check that these are the features of a run.

        Raises:
            UserError: they start elsewhere, or are of another backbone or fold.
        """
        for name, expected in (("init", init), ("backbone", backbone), ("fold", fold)):
            if (found := getattr(self.attributes, name)) != expected:
                raise UserError(f"{self.path}: embeddings of {name} {found}, expected {name} {expected}")


def write_embeddings(
    path: Path, scan_ids: Sequence[str], blocks: Iterable[np.ndarray], attributes: EmbeddingAttributes
) -> None:
    """Write embeddings.h5 block by block; it appears under its name only when it is complete.

    Args:
        scan_ids: N names, in manifest order.
        blocks: float32 [n, D] in the same order, N rows in all.

    Raises:
        UserError: a feature is not finite, or the file does not fit on the disk or cannot be written.
    """
    done = 0
    with replacing(path) as temporary, closing(DeferringFile(temporary)) as raw:
        with h5py.File(raw, "w", libver="latest") as file:
            for block in blocks:
                if not np.isfinite(block).all():
                    raise UserError(f"{path}: features of {attributes.init} are not finite; its training diverged")
                if done == 0:
                    check_disk(path.parent, len(scan_ids) * block[0].nbytes, path.name, SPARE)
                    file.create_dataset("features", (len(scan_ids), block.shape[1]), np.float32)
                file["features"][done : done + len(block)] = block
                done += len(block)
                raw.check()
            assert done == len(scan_ids), (done, len(scan_ids))
            names = [name.encode() for name in scan_ids]
            text = h5py.string_dtype("utf-8", max(map(len, names)))  # of fixed length: the same bytes each time
            file.create_dataset("scan_id", data=names, dtype=text)
            for key, value in attributes.model_dump(mode="json").items():
                value = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
                file.attrs[key] = h5py.Empty("f") if value is None else value
        raw.check()


def read_embeddings(path: Path, cohort: Cohort, rows: np.ndarray | None = None) -> Embeddings:
    """Read the features of the scans `rows` (ascending; None: all), checked against the cohort.

    Raises:
        UserError: one line; no such file, a damaged one, a feature that is not finite, or features of other scans or
            of another store.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `octdino embed` writes it")
    wanted = np.arange(len(cohort)) if rows is None else rows
    try:
        with h5py.File(path, "r") as file:
            attributes = _read_attributes(path, file)
            features, scan_id = _checked_datasets(path, file)
            if attributes.pooled > features.shape[1]:
                raise UserError(f"{path}: pooled: {attributes.pooled} of {features.shape[1]} columns; {AGAIN}")
            _check_cohort(path, [str(name) for name in scan_id.asstr()[:]], attributes, cohort)
            return Embeddings(path, _read_rows(path, features, wanted), attributes)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:  # h5py's errors for damaged bytes
        raise UserError(f"{path}: cannot be read as HDF5: {error}") from None


def _read_attributes(path: Path, file: h5py.File) -> EmbeddingAttributes:
    values = {key: _plain(value) for key, value in file.attrs.items()}
    for key in ("model", "settings"):
        try:
            values[key] = json.loads(str(values.get(key)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: attribute {key}: no JSON: {error}; {AGAIN}") from None
    return EmbeddingAttributes.parse(values, f"{path}: attributes")


def _plain(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return None
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _checked_datasets(path: Path, file: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Return the datasets `features` and `scan_id`; all of their bytes are in this file."""
    features, scan_id = (own_dataset(file, name) for name in ("features", "scan_id"))
    if features is None or features.ndim != 2 or features.dtype != np.float32 or not features.shape[1]:
        raise UserError(f"{path}: features: expected float32 [N, D]; {AGAIN}")
    if scan_id is None or scan_id.shape != features.shape[:1] or not h5py.check_string_dtype(scan_id.dtype):
        raise UserError(f"{path}: scan_id: expected {features.shape[0]} texts; {AGAIN}")
    for dataset in (features, scan_id):
        if dataset.id.get_storage_size() < dataset.nbytes:
            raise UserError(f"{path}: {dataset.name}: not all of its bytes are in the file; {AGAIN}")
    return features, scan_id


def _check_cohort(path: Path, scan_ids: list[str], attributes: EmbeddingAttributes, cohort: Cohort) -> None:
    """The embeddings' scans are the manifest's, in the same order, and their images are the store's."""
    manifest = cohort.manifest["scan_id"].tolist()
    if len(scan_ids) != len(manifest):
        raise UserError(f"{path}: features of {len(scan_ids)} scans, manifest.csv has {len(manifest)}; {AGAIN}")
    for row, (found, expected) in enumerate(zip(scan_ids, manifest, strict=True)):
        if found != expected:
            raise UserError(f"{path}: row {row} is of scan {found}, manifest.csv has {expected} there; {AGAIN}")
    if attributes.source != cohort.source:
        raise UserError(f"{path}: features of another store than {cohort.store}: another content hash; {AGAIN}")


def _read_rows(path: Path, features: h5py.Dataset, wanted: np.ndarray) -> np.ndarray:
    """Read whole blocks in file order, which is faster than single rows; all of them are checked."""
    found = np.empty((len(wanted), features.shape[1]), np.float32)
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK]
        if not np.isfinite(block).all():
            raise UserError(f"{path}: features hold numbers that are not finite; {AGAIN}")
        low, high = np.searchsorted(wanted, [start, start + len(block)])
        found[low:high] = block[wanted[low:high] - start]
    return found
