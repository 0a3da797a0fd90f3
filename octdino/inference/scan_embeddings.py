"""Embeddings of new scans by a model folder: HDF5 or Parquet; the HDF5 file is the gallery of `octdino neighbors`.

HDF5: `features` float32 [N, D]; `address`, `file`, `patient`, `caption` text [N]; `frame` int64 [N], -1 where there is
none; attributes `format`, `sha256` (of the backbone), `store` (path of a store whose scans they are, or empty).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd

from octdino.data.atomic_files import DeferringFile, replacing
from octdino.data.schemas.model_folder import BACKBONE
from octdino.data.store import own_dataset
from octdino.errors import UserError
from octdino.inference.input_listing import list_inputs
from octdino.inference.prediction_tables import TableWriter, quarantine_table
from octdino.inference.scan_inputs import ScanInputs
from octdino.inference.scan_model import ScanModel, load_scan_model
from octdino.training.determinism import set_determinism

log = logging.getLogger("octdino.inference")

FORMAT = 1
TEXTS = ("address", "file", "patient", "caption")


@dataclass(frozen=True)
class ScanEmbeddings:
    """Embeddings that were read.

    Attributes:
        features: float32 [N, D].
        table: address, file, patient, caption and frame of each scan.
        sha256: of the weights of the backbone.
        store: path of the store whose scans they are; empty for files.
    """

    path: Path
    features: np.ndarray
    table: pd.DataFrame
    sha256: str
    store: str

    def check_model(self, model: ScanModel) -> None:
        """Check that these are embeddings by the backbone of `model`.

        Raises:
            UserError: they are of other weights.
        """
        if self.sha256 != model.metadata.sha256[BACKBONE]:
            raise UserError(f"{self.path}: embeddings by another model than {model.folder}; run octdino embed with it")


def embed_scans(
    folder: Path, inputs: list[str], out: Path, suffix: Literal["h5", "parquet"], precision: str, workers: int
) -> int:
    """Write embeddings.h5 or embeddings.parquet, and quarantine.csv; return how many scans were refused.

    Raises:
        UserError: no model folder, nothing to embed, or an output that cannot be written.
    """
    set_determinism(True)
    model = load_scan_model(folder, precision)
    scans = list_inputs(inputs)
    captions = _captions(scans)
    refused, features, rows = list(scans.refused), [], []
    for block in scans.blocks(model.metadata.input.image, workers, "embedding"):
        refused += block.refused
        for place, scan in zip(block.places, block.scans, strict=True):
            frame = -1 if scan.frame is None else scan.frame
            rows.append((scan.address, scan.file, scan.patient, captions[place], frame))
        if block.scans:
            features.append(model.outputs(block.images).embeddings)
    table = pd.DataFrame(rows, columns=[*TEXTS, "frame"]).astype({**dict.fromkeys(TEXTS, "string"), "frame": "int64"})
    width = model.network.pooled
    joined = np.concatenate(features) if features else np.zeros((0, width), np.float32)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"embeddings.{suffix}"
    if suffix == "h5":
        store = str(scans.cohort.store.resolve()) if scans.cohort else ""
        _write(path, ScanEmbeddings(path, joined, table, model.metadata.sha256[BACKBONE], store))
    else:
        with TableWriter(path) as writer:
            writer.append(table.assign(features=list(joined)))
    with TableWriter(out / "quarantine.csv") as writer:
        writer.append(quarantine_table(refused))
    log.info("%s: %d scans, %d features; %d refused", path, len(joined), width, len(refused))
    return len(refused)


def _captions(scans: ScanInputs) -> list[str]:
    """Return the positive labels of a store's scans as text; empty for files."""
    if scans.cohort is None:
        return [""] * len(scans.scans)
    labels = np.array(scans.cohort.labels)
    return [", ".join(labels[row == 1]) for row in scans.cohort.truth] if len(labels) else [""] * len(scans.scans)


def _write(path: Path, found: ScanEmbeddings) -> None:
    with replacing(path) as temporary, DeferringFile(temporary) as raw:
        with h5py.File(raw, "w", libver="latest") as file:
            file.create_dataset("features", data=found.features)
            file.create_dataset("frame", data=found.table["frame"].to_numpy(np.int64))
            for name in TEXTS:
                texts = [str(text).encode() for text in found.table[name]]
                kind = h5py.string_dtype("utf-8", max(map(len, texts), default=1) or 1)
                file.create_dataset(name, (len(texts),), kind, data=texts or None)
            file.attrs.update({"format": FORMAT, "sha256": found.sha256, "store": found.store})
        raw.check()


def read_scan_embeddings(path: Path) -> ScanEmbeddings:
    """Read what `embed_scans` wrote as HDF5.

    Raises:
        UserError: no such file, or a damaged or another one.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `octdino embed MODEL INPUT` writes it")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"{path}: no embeddings of `octdino embed MODEL INPUT` of format {FORMAT}")
            data: dict[str, Any] = {name: own_dataset(file, name) for name in ("features", "frame", *TEXTS)}
            if missing := [name for name, dataset in data.items() if dataset is None]:
                raise UserError(f"{path}: no dataset {', '.join(missing)}; run octdino embed again")
            if any(each.id.get_storage_size() < each.nbytes for each in data.values()):
                raise UserError(f"{path}: not all of its bytes are in the file; run octdino embed again")
            features, frame = data["features"][:], data["frame"][:]
            texts = {name: data[name].asstr()[:] for name in TEXTS}
            sha256, store = str(file.attrs["sha256"]), str(file.attrs["store"])
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:  # of damaged bytes
        raise UserError(f"{path}: cannot be read as HDF5: {error}") from None
    if features.ndim != 2 or features.dtype != np.float32 or not np.isfinite(features).all():
        raise UserError(f"{path}: features: expected finite float32 [N, D]; run octdino embed again")
    if {len(frame), *map(len, texts.values())} != {len(features)}:
        raise UserError(f"{path}: datasets of different lengths; run octdino embed again")
    return ScanEmbeddings(path, features, pd.DataFrame({**texts, "frame": frame}), sha256, store)
