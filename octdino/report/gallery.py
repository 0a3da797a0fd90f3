"""The worst errors: of each label the surest misses and the surest false alarms among test patients, by rule."""

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from octdino.data.predictions import read_predictions
from octdino.data.safetensors_numpy import read_arrays
from octdino.data.schemas.metadata import ExplainMetadata, read_metadata
from octdino.report.model_card import Runs
from octdino.report.results_reader import Results

SIDE = 160  # px, of a picture's longer side
BUDGET = 900_000  # characters of pictures in all
MISSED, ALARM = "missed", "false alarm"


@dataclass(frozen=True)
class Mistake:
    """One scan, one label.

    Attributes:
        kind: missed or false alarm.
        distance: how far the probability lies on the wrong side of the threshold.
        known: CST, BCVA, eye and visit, as far as they are known, in words.
        image: data URI; empty where the store is not there or the page would grow too large.
        saliency: the same with the map of where the arm's classifier looks; empty where none was made.
    """

    label: str
    kind: str
    scan_id: str
    patient: str
    probability: float
    threshold: float
    distance: float
    known: str
    image: str = ""
    saliency: str = ""


def mistakes(results: Results, runs: Runs, count: int) -> list[Mistake]:
    """Of each evaluable label up to `count` misses and `count` false alarms, the worst first, each of another patient.

    Args:
        runs: folder and card of the arm's folds and seeds; of several seeds the first is shown.
    """
    first = min((int(card["seed"]) for _, card in runs), default=0)
    tiers = results.metrics.drop_duplicates("label").set_index("label")["tier"]
    labels = [label for label in results.labels if tiers.get(label) in ("primary", "exploratory")]
    tables = [_wrong(folder, labels) for folder, card in runs if int(card["seed"]) == first] if count else []
    wrong = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if wrong.empty:
        return []
    wrong = wrong.sort_values(["distance", "scan_id"], ascending=[False, True])
    wrong = wrong.drop_duplicates(["label", "kind", "patient"])
    chosen = wrong.groupby(["label", "kind"], sort=False).head(count)
    manifest = results.manifest.set_index("scan_id")
    found = [
        Mistake(**{str(key): value for key, value in row.items()}, known=_known(manifest.loc[row["scan_id"]]))
        for label in labels
        for kind in (MISSED, ALARM)
        for row in chosen[(chosen["label"] == label) & (chosen["kind"] == kind)].to_dict("records")
    ]
    return _pictured(results, found, _maps(results, str(runs[0][1]["arm"]), str(runs[0][1]["backbone"])))


def _wrong(folder: Path, labels: list[str]) -> pd.DataFrame:
    """Every wrong call among the test scans of one classifier, at its own thresholds."""
    found = read_predictions(folder).take("test")
    truth, p = found.truth(), found.probabilities()
    parts = []
    for index, label in enumerate(found.labels):
        threshold = found.thresholds()[index]
        if label not in labels or threshold is None:
            continue
        called = p[:, index] >= threshold
        wrong = (called & (truth[:, index] == 0)) | (~called & (truth[:, index] == 1))
        part = found.table.loc[wrong, ["scan_id", "patient"]].astype(str)
        kind = np.where(called[wrong], ALARM, MISSED)
        distance = np.abs(p[wrong, index] - threshold)
        parts.append(
            part.assign(label=label, kind=kind, probability=p[wrong, index], threshold=threshold, distance=distance)
        )
    return pd.concat(parts) if parts else pd.DataFrame()


def _known(row: pd.Series) -> str:
    words = []
    for name, unit in (("cst", " µm"), ("bcva", " letters")):
        words.append(f"{name.upper()} {'unknown' if pd.isna(row[name]) else f'{row[name]:.0f}{unit}'}")
    words += [f"{name} {row[name]}" for name in ("visit", "slice") if not pd.isna(row[name]) and row[name] != ""]
    return ", ".join(words)


def _maps(results: Results, arm: str, backbone: str) -> dict[str, dict[str, np.ndarray]]:
    """Of each scan that the explain stage looked at: label and map, uint8 [h, w]."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(results.root.glob(f"explain/*/{backbone}/*/maps.safetensors")):
        card = read_metadata(path.with_name("explain.json"), ExplainMetadata, "explain")
        maps = read_arrays(path, "explain").get(arm)
        if maps is not None and maps.shape[:2] == (len(card.scan_ids), len(card.labels)):
            for scan, own in zip(card.scan_ids, maps, strict=True):
                found.setdefault(scan, dict(zip(card.labels, own, strict=True)))
    return found


def _pictured(
    results: Results, found: list[Mistake], maps: dict[str, dict[str, np.ndarray]]
) -> list[Mistake]:  # fmt: skip
    images = results.images([one.scan_id for one in found])
    spent, pictured = 0, []
    for one in found:
        image, saliency = "", ""
        if spent < BUDGET and one.scan_id in images:
            scan = _small(images[one.scan_id])
            image = _jpeg(scan)
            own = maps.get(one.scan_id, {}).get(one.label)
            saliency = "" if own is None else _jpeg(_tinted(scan, own))
            spent += len(image) + len(saliency)
        pictured.append(replace(one, image=image, saliency=saliency))
    return pictured


def _small(image: np.ndarray) -> Image.Image:
    """A scan [C, H, W] as it is shown."""
    picture = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))
    picture.thumbnail((SIDE, SIDE))
    return picture


def _tinted(scan: Image.Image, own: np.ndarray) -> Image.Image:
    """The scan, orange where the map is high."""
    shade = Image.fromarray(own).resize(scan.size, Image.Resampling.BILINEAR)
    share = 0.65 * np.asarray(shade, np.float32)[:, :, None] / 255
    mixed = (1 - share) * np.asarray(scan.convert("RGB"), np.float32) + share * np.array([255, 140, 0], np.float32)
    return Image.fromarray(mixed.astype(np.uint8))


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
