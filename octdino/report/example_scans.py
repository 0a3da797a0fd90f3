"""Example scans on the page: test scans with predictions, and the worst errors per label; both are selected by rule."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from octdino.data.predictions import Predictions, read_predictions
from octdino.data.safetensors_numpy import read_arrays
from octdino.data.schemas.metadata import ExplainMetadata, read_metadata
from octdino.report.model_card import Runs
from octdino.report.results_reader import Results
from octdino.scans.pictures import data_uri, to_image
from octdino.stats.calibration import at_temperature

MISSED, FALSE_ALARM = "missed", "false alarm"
KINDS = ("found", MISSED, FALSE_ALARM, "rightly absent")
SIDE = 160  # px, longer side of the scan of an error
BUDGET = 900_000  # characters of all images of errors together


@dataclass(frozen=True)
class Example:
    """One test scan.

    Attributes:
        image: data URI of a PNG, empty where there is no store.
        why: label and kind for which it was selected.
        rows: label, truth, probability, threshold (None where classes exclude each other) and kind of each evaluable
            label.
    """

    scan_id: str
    patient: str
    image: str
    why: tuple[str, str]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction: one scan, one label.

    Attributes:
        kind: missed or false alarm.
        threshold: None where classes exclude each other: the most probable one is predicted.
        distance: how far the probability is on the wrong side of the threshold, or of the other classes' highest.
        known: CST, BCVA, visit and slice, as far as they are known, in words.
        image: data URI; empty where there is no store or the page would grow too large.
        saliency: the scan with the saliency map of the arm's classifier; empty where there is none.
    """

    label: str
    kind: str
    scan_id: str
    patient: str
    probability: float
    threshold: float | None
    distance: float
    known: str
    image: str = ""
    saliency: str = ""


def examples(
    results: Results, count: int, arm: str, fraction: float, backbone: str = ""
) -> tuple[list[Example], Path | None]:
    """Return up to `count` test scans with the predictions of `arm` at `fraction`, and the folder of its first run.

    Without `backbone` the run is of the arm's first backbone.

    Raises:
        UserError: its predictions are missing or damaged.
    """
    folders = [
        folder
        for folder, metadata in results.classifiers
        if (metadata.get("arm"), metadata.get("fraction")) == (arm, fraction)
        and backbone in ("", metadata.get("backbone"))
    ]
    labels = results.tables.evaluable(results.cohort.labels)
    if not folders or not count or not labels:
        return [], None
    found = read_predictions(folders[0]).take("test")
    labels = [label for label in labels if label in found.labels]
    chosen = choose_examples(found, labels, count)
    stored = results.images([found.table["scan_id"].iloc[row] for row, _ in chosen])
    images = {scan: data_uri(to_image(pixels), "PNG", optimize=True) for scan, pixels in stored.items()}
    return [_example(found, labels, row, why, images) for row, why in chosen], folders[0]


def choose_examples(found: Predictions, labels: list[str], count: int) -> list[tuple[int, tuple[str, str]]]:
    """Return rows and the reasons for them: in turn a true positive, false negative, false positive, true negative.

    Each is of the next label; of the scans of a kind, the one with the most certain prediction; no patient twice while
    there are others.
    """
    kinds, certainty = _kinds(found, labels)
    turns = [(label, KINDS[(turn + index) % 4]) for turn in range(4) for index, label in enumerate(labels)]
    scans, patients = found.table["scan_id"].to_numpy(), found.table["patient"].to_numpy()
    chosen: list[tuple[int, tuple[str, str]]] = []
    for new_patients_only in (True, False):
        for label, kind in turns:
            if len(chosen) == count:
                return chosen
            taken = {row for row, _ in chosen}
            seen = {patients[row] for row in taken} if new_patients_only else set()
            rows = [
                r for r in np.flatnonzero(kinds[label] == kind) if r not in taken and patients[r] not in seen
            ]  # fmt: skip
            if rows and (label, kind) not in [why for _, why in chosen]:
                best = min(rows, key=lambda r: (-certainty[label][r], scans[r]))
                chosen.append((int(best), (label, kind)))
    return chosen


class Decided(NamedTuple):
    """What a classifier decides.

    Attributes:
        called: bool [N, L].
        p: float64 [N, L], the probabilities to show.
        margin: float64 [N, L], distance of the probability from where the decision changes.
        thresholds: of each label; None where it has none.
    """

    called: np.ndarray
    p: np.ndarray
    margin: np.ndarray
    thresholds: list[float | None]


def decide(found: Predictions) -> Decided:
    """Return the decisions of a classifier, as its model folder makes them.

    Of classes that exclude each other the most probable one is predicted, and probabilities are calibrated: the
    margin is that to the highest of the other classes. Other labels have a threshold each, chosen on uncalibrated
    probabilities; one without a threshold is called from 0.5.
    """
    p, thresholds = found.probabilities(), found.thresholds()
    if found.metadata.exclusive and len(found.labels) > 1:
        temperature = found.temperature()
        called = p.argmax(1)[:, None] == np.arange(len(found.labels))
        p = p if temperature is None else at_temperature(p, temperature, exclusive=True)
        others = np.stack([np.delete(p, index, axis=1).max(1) for index in range(p.shape[1])], axis=1)
        return Decided(called, p, np.abs(p - others), [None] * len(found.labels))
    cuts = np.array([0.5 if threshold is None else threshold for threshold in thresholds])
    return Decided(p >= cuts, p, np.abs(p - cuts), thresholds)


def _kinds(found: Predictions, labels: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return per label the kind of each scan ("" if unknown) and the margin of its prediction."""
    truth, decided = found.truth(), decide(found)
    kinds, certainty = {}, {}
    for label in labels:
        index = found.labels.index(label)
        called, y = decided.called[:, index], truth[:, index]
        kinds[label] = np.select(
            [(y == 1) & called, (y == 1) & ~called, (y == 0) & called, (y == 0) & ~called], KINDS, default=""
        )
        certainty[label] = decided.margin[:, index]
    return kinds, certainty


def _example(
    found: Predictions, labels: list[str], row: int, why: tuple[str, str], images: dict[str, str]
) -> Example:  # fmt: skip
    (kinds, _), decided = _kinds(found, labels), decide(found)
    scan = str(found.table["scan_id"].iloc[row])
    rows = []
    for label in labels:
        index = found.labels.index(label)
        truth = found.truth()[row, index]
        rows.append(
            {
                "label": label,
                "truth": "unknown" if np.isnan(truth) else "present" if truth == 1 else "absent",
                "p": float(decided.p[row, index]),
                "threshold": decided.thresholds[index],
                "kind": str(kinds[label][row]) or "unknown",
            }
        )
    return Example(scan, str(found.table["patient"].iloc[row]), images.get(scan, ""), why, rows)


def mistakes(results: Results, runs: Runs, count: int) -> list[Mistake]:
    """Return per evaluable label up to `count` misses and `count` false alarms, worst first, each of another patient.

    Args:
        runs: folder and metadata of the arm's folds and seeds; of several seeds the first is shown.
    """
    first = min((int(metadata["seed"]) for _, metadata in runs), default=0)
    labels = results.tables.evaluable(results.cohort.labels)
    tables = [_wrong(folder, labels) for folder, metadata in runs if int(metadata["seed"]) == first] if count else []
    wrong = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if wrong.empty:
        return []
    wrong = wrong.sort_values(["distance", "scan_id"], ascending=[False, True])
    wrong = wrong.drop_duplicates(["label", "kind", "patient"])
    chosen = wrong.groupby(["label", "kind"], sort=False).head(count)
    manifest = results.cohort.manifest.set_index("scan_id")
    found = [
        Mistake(**{str(key): value for key, value in row.items()}, known=_known(manifest.loc[row["scan_id"]]))
        for label in labels
        for kind in (MISSED, FALSE_ALARM)
        for row in chosen[(chosen["label"] == label) & (chosen["kind"] == kind)].to_dict("records")
    ]
    return _with_images(results, found, _maps(results, str(runs[0][1]["arm"]), str(runs[0][1]["backbone"])))


def _wrong(folder: Path, labels: list[str]) -> pd.DataFrame:
    """Return every wrong prediction among the test scans of one classifier, as it decides itself."""
    found = read_predictions(folder).take("test")
    decided = decide(found)
    if not found.metadata.exclusive:
        labels = [label for label in labels if decided.thresholds[found.labels.index(label)] is not None]
    kinds, distances = _kinds(found, labels)
    parts = []
    for label in labels:
        index, wrong = found.labels.index(label), np.isin(kinds[label], (MISSED, FALSE_ALARM))
        parts.append(
            found.table.loc[wrong, ["scan_id", "patient"]]
            .astype(str)
            .assign(
                label=label,
                kind=kinds[label][wrong],
                probability=decided.p[wrong, index],
                threshold=decided.thresholds[index],
                distance=distances[label][wrong],
            )
        )
    return pd.concat(parts) if parts else pd.DataFrame()


def _known(row: pd.Series) -> str:
    words = []
    for name, unit in (("cst", " µm"), ("bcva", " letters")):
        words += [] if pd.isna(row[name]) else [f"{name.upper()} {row[name]:.0f}{unit}"]
    words += [f"{name} {row[name]}" for name in ("visit", "slice") if not pd.isna(row[name]) and row[name] != ""]
    return ", ".join(words)


def _maps(results: Results, arm: str, backbone: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the saliency maps of the explain stage by scan and label, uint8 [h, w]."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for folder in results.explained:
        path = folder / "maps.safetensors"
        if folder.parent.name != backbone or not path.is_file():
            continue
        metadata = read_metadata(folder / "explain.json", ExplainMetadata, "explain")
        maps = read_arrays(path, "explain").get(arm)
        if maps is not None and maps.shape[:2] == (len(metadata.scan_ids), len(metadata.labels)):
            for scan, of_scan in zip(metadata.scan_ids, maps, strict=True):
                found.setdefault(scan, dict(zip(metadata.labels, of_scan, strict=True)))
    return found


def _with_images(
    results: Results, found: list[Mistake], maps: dict[str, dict[str, np.ndarray]]
) -> list[Mistake]:  # fmt: skip
    """Return the errors with image and saliency map, as long as the page's budget lasts."""
    images = results.images([one.scan_id for one in found])
    spent, shown = 0, []
    for one in found:
        image, saliency = "", ""
        if spent < BUDGET and one.scan_id in images:
            scan = to_image(images[one.scan_id])
            scan.thumbnail((SIDE, SIDE))
            image = data_uri(scan, "JPEG", optimize=True, quality=80)
            saliency_map = maps.get(one.scan_id, {}).get(one.label)
            saliency = (
                ""
                if saliency_map is None
                else data_uri(_overlay(scan, saliency_map), "JPEG", optimize=True, quality=80)
            )
            spent += len(image) + len(saliency)
        shown.append(replace(one, image=image, saliency=saliency))
    return shown


def _overlay(scan: Image.Image, saliency_map: np.ndarray) -> Image.Image:
    """Return the scan with the map in orange over it."""
    shade = Image.fromarray(saliency_map).resize(scan.size, Image.Resampling.BILINEAR)
    share = 0.65 * np.asarray(shade, np.float32)[:, :, None] / 255
    mixed = (1 - share) * np.asarray(scan.convert("RGB"), np.float32) + share * np.array([255, 140, 0], np.float32)
    return Image.fromarray(mixed.astype(np.uint8))
