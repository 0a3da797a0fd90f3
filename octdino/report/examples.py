"""Example test scans with an arm's predictions: hits and misses both, chosen by rule and not by eye."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from octdino.data.predictions import Predictions, read_predictions
from octdino.report.results_reader import Results

KINDS = ("found", "missed", "false alarm", "rightly absent")


@dataclass(frozen=True)
class Example:
    """One test scan.

    Attributes:
        image: data URI of a PNG, empty where the store is not there.
        why: label and kind for which it was chosen.
        rows: label, truth, probability, threshold and kind of each evaluable label.
    """

    scan_id: str
    patient: str
    image: str
    why: tuple[str, str]
    rows: list[dict[str, Any]]


def examples(
    results: Results, count: int, arm: str, fraction: float, backbone: str = ""
) -> tuple[list[Example], Path | None]:
    """Up to `count` test scans with the predictions of `arm` at `fraction` (its first fold and seed).

    Without `backbone` it is the arm's first.
    """
    folders = [
        folder
        for folder, card in results.classifiers
        if (card.get("arm"), card.get("fraction")) == (arm, fraction) and backbone in ("", card.get("backbone"))
    ]
    tiers = results.metrics.drop_duplicates("label").set_index("label")["tier"]
    labels = [label for label in results.labels if tiers.get(label) in ("primary", "exploratory")]
    if not folders or not count or not labels:
        return [], None
    found = read_predictions(folders[0]).take("test")
    labels = [label for label in labels if label in found.labels]
    chosen = choose(found, labels, count)
    stored = results.images([found.table["scan_id"].iloc[row] for row, _ in chosen])
    images = {scan: data_uri(image) for scan, image in stored.items()}
    return [_example(found, labels, row, why, images) for row, why in chosen], folders[0]


def choose(found: Predictions, labels: list[str], count: int) -> list[tuple[int, tuple[str, str]]]:
    """Rows and why: by turns a find, a miss, a false alarm and a right absence, each of the next label in order.

    Of the scans of a kind the one predicted most surely; nobody's second scan while there are other patients.
    """
    kinds, surest = _kinds(found, labels)
    turns = [(label, KINDS[(turn + index) % 4]) for turn in range(4) for index, label in enumerate(labels)]
    scans, patients = found.table["scan_id"].to_numpy(), found.table["patient"].to_numpy()
    chosen: list[tuple[int, tuple[str, str]]] = []
    for fresh in (True, False):
        for label, kind in turns:
            if len(chosen) == count:
                return chosen
            taken = {row for row, _ in chosen}
            seen = {patients[row] for row in taken} if fresh else set()
            rows = [
                r for r in np.flatnonzero(kinds[label] == kind) if r not in taken and patients[r] not in seen
            ]  # fmt: skip
            if rows and (label, kind) not in [why for _, why in chosen]:
                best = min(rows, key=lambda r: (-surest[label][r], scans[r]))
                chosen.append((int(best), (label, kind)))
    return chosen


def _kinds(found: Predictions, labels: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each label: which of KINDS each scan is ("" if unknown), and how far the prediction is from the threshold."""
    truth, p = found.truth(), found.probabilities()
    kinds, surest = {}, {}
    for label in labels:
        index = found.labels.index(label)
        threshold = found.thresholds()[index]
        if threshold is None:
            threshold = 0.5
        called, y = p[:, index] >= threshold, truth[:, index]
        kinds[label] = np.select(
            [(y == 1) & called, (y == 1) & ~called, (y == 0) & called, (y == 0) & ~called], KINDS, default=""
        )
        surest[label] = np.abs(p[:, index] - threshold)
    return kinds, surest


def _example(
    found: Predictions, labels: list[str], row: int, why: tuple[str, str], images: dict[str, str]
) -> Example:  # fmt: skip
    kinds, _ = _kinds(found, labels)
    scan = str(found.table["scan_id"].iloc[row])
    rows = []
    for label in labels:
        index = found.labels.index(label)
        truth = found.truth()[row, index]
        rows.append(
            {
                "label": label,
                "truth": "unknown" if np.isnan(truth) else "present" if truth == 1 else "absent",
                "p": float(found.probabilities()[row, index]),
                "threshold": found.thresholds()[index],
                "kind": str(kinds[label][row]) or "unknown",
            }
        )
    return Example(scan, str(found.table["patient"].iloc[row]), images.get(scan, ""), why, rows)


def data_uri(image: np.ndarray) -> str:
    """A uint8 image [C, H, W], grey or RGB, as a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
