"""The gallery of predict: one self-contained HTML page with the surest scans of each label and the most unlike ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.data.atomic_files import replacing
from octdino.inference.ensemble import Ensemble
from octdino.inference.pages import render_page
from octdino.inference.scan_inputs import ScanInputs
from octdino.scans.pictures import data_uri, to_image

KEYS = ["scan", "file", "frame", "label", "probability", "call", "out_of_distribution", "flagged"]


@dataclass(frozen=True)
class Counts:
    """How many scans were predicted, flagged as out of distribution, and refused."""

    predicted: int
    flagged: int
    refused: int


class Selection:
    """The scans that the gallery shows, chosen part by part: per label the highest probabilities, and the most unlike.

    Args:
        most: scans on the page; 0: no page.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._rows: pd.DataFrame | None = None

    def add(self, rows: pd.DataFrame) -> None:
        """Take rows as `tidy_table` returns them into account."""
        if self.most and len(rows):
            joined = rows[KEYS] if self._rows is None else pd.concat([self._rows, rows[KEYS]])
            self._rows = joined[joined["scan"].isin(self._chosen(joined))]

    def _chosen(self, rows: pd.DataFrame) -> set[int]:
        unlike = rows.drop_duplicates("scan").nlargest(max(self.most // 5, 1), "out_of_distribution")
        chosen = set(unlike["scan"].loc[unlike["flagged"]].tolist())
        labels = rows["label"].unique()
        known = rows[~rows["flagged"]]
        ranked = [
            known[known["label"] == label].nlargest(self.most, "probability")["scan"].tolist() for label in labels
        ]
        for rank in range(self.most):
            for scans in ranked:
                if rank < len(scans) and len(chosen) < self.most:
                    chosen.add(scans[rank])
        return chosen

    def scans(self) -> list[pd.DataFrame]:
        """Return the rows of each chosen scan, in order of the inputs."""
        return [] if self._rows is None else [own for _, own in self._rows.sort_values("scan").groupby("scan")]


def write_gallery(path: Path, ensemble: Ensemble, scans: ScanInputs, shown: Selection, counts: Counts) -> bool:
    """Write the page and return whether there is one: without a scan to show, an older page is deleted."""
    chosen = shown.scans()
    if not chosen:
        path.unlink(missing_ok=True)
        return False
    places = [int(own["scan"].iloc[0]) - 1 for own in chosen]
    decoded = scans.decode(places, ensemble.image, 1)
    cards = [
        _card(own, scan.image, ensemble)
        for own, scan in zip(chosen, decoded, strict=True)
        if scan.image is not None  # a file that is gone by now
    ]
    metadata = ensemble.first.metadata
    page = render_page(
        "gallery.html.j2",
        cards=cards, counts=counts, labels=ensemble.labels, exclusive=metadata.exclusive, arm=metadata.arm,
        cohort=metadata.provenance.cohort, models=len(ensemble.models),
        intended_use=metadata.intended_use,
    )  # fmt: skip
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return True


def _card(rows: pd.DataFrame, image: np.ndarray, ensemble: Ensemble) -> dict[str, Any]:
    thresholds = dict(zip(ensemble.labels, ensemble.thresholds().tolist(), strict=True))
    first = rows.iloc[0]
    frame = "" if pd.isna(first["frame"]) else f", B-scan {first['frame']}"
    return {
        "name": f"{Path(first['file']).name}{frame}",
        "number": int(first["scan"]),
        "flagged": bool(first["flagged"]),
        "distance": float(first["out_of_distribution"]),
        "picture": encoded(image),
        "labels": [
            {
                "name": row["label"], "probability": float(row["probability"]), "call": bool(row["call"]),
                "threshold": None if np.isnan(thresholds[row["label"]]) else thresholds[row["label"]],
            }
            for _, row in rows.iterrows()
        ],
    }  # fmt: skip


def encoded(image: np.ndarray) -> str:
    """Return a scan, uint8 [C, H, W], as the data URL of a JPEG."""
    return data_uri(to_image(image), "JPEG", quality=85)
