"""Retrieval: the scans of a gallery whose embeddings are nearest to those of new scans, as a table and a page."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from octdino.config.cohort import ImageSettings
from octdino.data.atomic_files import replacing
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.inference.gallery import encoded
from octdino.inference.input_listing import list_inputs
from octdino.inference.pages import render_page
from octdino.inference.prediction_tables import TableWriter, quarantine_table
from octdino.inference.scan_embeddings import ScanEmbeddings, read_scan_embeddings
from octdino.inference.scan_inputs import ScanInput
from octdino.inference.scan_model import ScanModel, load_scan_model
from octdino.scans.preprocess import decode_scan
from octdino.scans.sources import FolderSource
from octdino.training.determinism import set_determinism

log = logging.getLogger("octdino.inference")

COLUMNS = {
    "query": "string", "query_frame": "Int64", "rank": "int64", "neighbor": "string", "neighbor_frame": "Int64",
    "caption": "string", "similarity": "float64",
}  # fmt: skip


@dataclass(frozen=True)
class Neighbor:
    """One scan of the gallery near a query.

    Attributes:
        place: its row in the gallery.
        similarity: cosine of the embeddings, from -1 to 1.
    """

    place: int
    similarity: float


class Gallery:
    """Embedded scans to be found again: those of an embeddings.h5 of `octdino embed MODEL INPUT`.

    Raises:
        UserError: the file is damaged, or of another model.
    """

    def __init__(self, path: Path, model: ScanModel) -> None:
        self.embeddings: ScanEmbeddings = read_scan_embeddings(path)
        self.embeddings.check_model(model)
        self._unit = F.normalize(torch.from_numpy(self.embeddings.features), dim=-1)
        self._image: ImageSettings = model.metadata.input.image
        self._cohort: Cohort | None = None

    def nearest(self, features: np.ndarray, count: int, exclude: list[str] | None = None) -> list[list[Neighbor]]:
        """Return the `count` most similar scans of each query, the most similar first.

        Args:
            features: of the queries, float32 [N, D].
            exclude: address of each query, which is no neighbor of itself.
        """
        similarity = F.normalize(torch.from_numpy(features), dim=-1) @ self._unit.T
        if exclude is not None:
            addresses = self.embeddings.table["address"].to_numpy()
            for row, address in zip(similarity, exclude, strict=True):
                row[torch.from_numpy(addresses == address)] = -torch.inf
        top, places = similarity.topk(min(count, similarity.shape[1]), dim=1)
        return [
            [Neighbor(int(p), float(s)) for p, s in zip(row, values, strict=True) if np.isfinite(s)]
            for row, values in zip(places.tolist(), top.tolist(), strict=True)
        ]

    def caption(self, place: int) -> str:
        """Return the labels of a scan where they are known, or the name of its file."""
        row = self.embeddings.table.iloc[place]
        return str(row["caption"]) or Path(str(row["file"])).name

    def picture(self, place: int) -> np.ndarray | None:
        """Return the scan, uint8 [C, H, W]; None if its file is gone or cannot be read."""
        if self.embeddings.store:
            if self._cohort is None:
                self._cohort = read_cohort(Path(self.embeddings.store))
            found: np.ndarray = self._cohort.images([place])[0]
            return found
        address = str(self.embeddings.table["address"].iloc[place])
        return decode_scan(address, self._image, FolderSource(Path())).image


def find_neighbors(
    folder: Path, inputs: list[str], gallery: Path, out: Path, count: int, shown: int, workers: int
) -> int:
    """Write neighbors.csv, neighbors.html (the first `shown` queries) and quarantine.csv; return the refused scans.

    Raises:
        UserError: no model folder, no gallery of this model, or nothing to look for.
    """
    set_determinism(True)
    model = load_scan_model(folder)
    found = Gallery(gallery, model)
    scans = list_inputs(inputs)
    refused = list(scans.refused)
    cards: list[dict[str, Any]] = []
    with TableWriter(out / "neighbors.csv") as table:
        table.append(_table([], found))
        for block in scans.blocks(model.metadata.input.image, workers, "searching"):
            refused += block.refused
            if not block.scans:
                continue
            features = model.outputs(block.images).embeddings
            near = found.nearest(features, count, [scan.address for scan in block.scans])
            pairs = list(zip(block.scans, near, strict=True))
            table.append(_table(pairs, found))
            cards += islice(_cards(pairs, block.images, found), max(shown - len(cards), 0))
    with TableWriter(out / "quarantine.csv") as table:
        table.append(quarantine_table(refused))
    _write_page(out / "neighbors.html", cards, model)
    log.info("%s: %d neighbors of each scan; %d refused", out, count, len(refused))
    return len(refused)


def _table(pairs: list[tuple[ScanInput, list[Neighbor]]], gallery: Gallery) -> pd.DataFrame:
    rows = []
    for scan, near in pairs:
        for rank, one in enumerate(near, 1):
            other = gallery.embeddings.table.iloc[one.place]
            frame = None if other["frame"] < 0 else int(other["frame"])
            rows.append((scan.file, scan.frame, rank, other["file"], frame, other["caption"], one.similarity))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _cards(
    pairs: list[tuple[ScanInput, list[Neighbor]]], images: np.ndarray, gallery: Gallery
) -> Iterator[dict[str, Any]]:
    for (scan, near), image in zip(pairs, images, strict=True):
        frame = "" if scan.frame is None else f", B-scan {scan.frame}"
        shown = []
        for one in near:
            picture = gallery.picture(one.place)
            source = None if picture is None else encoded(picture)
            shown.append({"picture": source, "caption": gallery.caption(one.place), "similarity": one.similarity})
        yield {"name": f"{Path(scan.file).name}{frame}", "picture": encoded(image), "neighbors": shown}


def _write_page(path: Path, cards: list[dict[str, Any]], model: ScanModel) -> None:
    if not cards:
        path.unlink(missing_ok=True)
        return
    metadata = model.metadata
    page = render_page("neighbors.html.j2", cards=cards, arm=metadata.arm, cohort=metadata.provenance.cohort)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
