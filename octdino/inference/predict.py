"""Predict new scans with one model folder or an ensemble: tables, summaries, overlays and a gallery."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from octdino import made_by
from octdino.data.atomic_files import replacing
from octdino.errors import StoppedEarly
from octdino.inference import scan_inputs
from octdino.inference.ensemble import Ensemble, load_ensemble
from octdino.inference.explanations import class_maps, overlay
from octdino.inference.gallery import Counts, Selection, write_gallery
from octdino.inference.input_listing import list_inputs
from octdino.inference.part_files import Part, PartFiles, file_state
from octdino.inference.prediction_tables import TableWriter, quarantine_table, tidy_table
from octdino.inference.scan_inputs import Block, ScanInputs
from octdino.inference.summaries import Summaries
from octdino.training.determinism import set_determinism
from octdino.training.signals import Stopper

log = logging.getLogger("octdino.inference")

Format = Literal["csv", "parquet"]


@dataclass(frozen=True)
class PredictOptions:
    """How `predict` runs and what it writes.

    Attributes:
        format: of the table of predictions.
        precision: float32, bfloat16 or auto, as in pretraining.
        overlays: whether an image of the class map is written per scan and called label.
        gallery: most scans on the HTML page; 0: no page.
        workers: processes that decode.
    """

    format: Format = "csv"
    precision: str = "float32"
    overlays: bool = False
    gallery: int = 60
    workers: int = 1


def predict(models: list[Path], inputs: list[str], out: Path, options: PredictOptions) -> Counts:
    """Write predictions.csv (or .parquet), quarantine.csv, summaries, gallery.html and overlays to `out`.

    Bad files are listed in quarantine.csv and the run continues. A stopped run resumes with the same command.

    Raises:
        UserError: no model folder, nothing to predict, or an output that cannot be written.
        StoppedEarly: a signal came; the parts that are done are kept.
    """
    set_determinism(True)
    ensemble = load_ensemble(models, options.precision)
    if options.overlays:
        class_maps(ensemble.first, np.zeros((1, ensemble.image.channels, *ensemble.image.size), np.uint8))
    scans = list_inputs(inputs)
    log.info("%d scans found, %d files refused so far", len(scans.scans), len(scans.refused))
    parts = PartFiles(out, _fingerprint(ensemble, scans, options))
    with parts.locked(), Stopper().listening() as stopper:
        _predict_parts(ensemble, scans, parts, out, options, stopper)
        shown = Selection(options.gallery)
        counts = _join(ensemble, scans, parts, out, options.format, shown)
        has_gallery = write_gallery(out / "gallery.html", ensemble, scans, shown, counts)
    parts.discard()
    log.info("%s: %d scans predicted, %d unlike the training scans, %d refused", out, *vars(counts).values())
    if has_gallery:
        log.info("the scans with their predictions: %s", out / "gallery.html")
    return counts


def _fingerprint(ensemble: Ensemble, scans: ScanInputs, options: PredictOptions) -> dict[str, object]:
    files = sorted({scan.file for scan in scans.scans})
    return {
        "models": [model.metadata.plain() for model in ensemble.models],
        "version": made_by("inference"),
        "block": scan_inputs.BLOCK,
        "scans": [[scan.address, scan.patient, scan.eye] for scan in scans.scans],
        "files": [file_state(file) for file in files],
        "store": scans.cohort.source if scans.cohort else None,
        "precision": options.precision,
        "overlays": options.overlays,
    }


def _predict_parts(
    ensemble: Ensemble, scans: ScanInputs, parts: PartFiles, out: Path, options: PredictOptions, stopper: Stopper
) -> None:
    """Decode and predict all parts that are not complete."""
    numbers = [number for number in range(_count(scans)) if not parts.has(number)]
    if done := _count(scans) - len(numbers):
        log.info("resuming: %d of %d parts are done", done, _count(scans))
    else:
        _delete_overlays(out)
    places = [place for number in numbers for place in _places(scans, number)]
    blocks = scans.blocks(ensemble.image, options.workers, "predicting", places)
    for number, block in zip(numbers, blocks, strict=True):
        parts.write(number, predict_part(ensemble, block, out if options.overlays else None))
        if reason := stopper.asked():
            raise StoppedEarly(f"stopped by {reason}; the same command resumes after {number + 1} parts")


def _count(scans: ScanInputs) -> int:
    return -(-len(scans.scans) // scan_inputs.BLOCK)


def _places(scans: ScanInputs, number: int) -> list[int]:
    size = scan_inputs.BLOCK
    return list(range(number * size, min((number + 1) * size, len(scans.scans))))


def predict_part(ensemble: Ensemble, block: Block, overlays: Path | None) -> Part:
    """Return the tables `predictions` and `quarantine` of some scans, and write overlays below a folder."""
    quarantine = quarantine_table(block.refused)
    if not block.scans:
        return {"predictions": tidy_table([], [], ensemble, None), "quarantine": quarantine}
    outputs = ensemble.outputs(block.images)
    if overlays is not None:
        _write_overlays(ensemble, block, outputs.calls, overlays / "overlays")
    return {"predictions": tidy_table(block.scans, block.places, ensemble, outputs), "quarantine": quarantine}


def _write_overlays(ensemble: Ensemble, block: Block, calls: np.ndarray, folder: Path) -> None:
    """Write one image per scan and called label: NUMBER-LABEL.png, numbered as in the table of predictions."""
    names = file_names(ensemble.labels)
    chosen = np.flatnonzero(calls.any(axis=1))
    if not len(chosen):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for row, maps in zip(chosen, class_maps(ensemble.first, block.images[chosen]), strict=True):
        for index in np.flatnonzero(calls[row]):
            with replacing(folder / f"{block.places[row] + 1:06d}-{names[index]}.png") as temporary:
                overlay(block.images[row], maps[index]).save(temporary)


def _delete_overlays(out: Path) -> None:
    """Delete the overlays of an earlier command: their numbers are of other scans."""
    for path in (out / "overlays").glob("[0-9]*-*.png"):
        path.unlink()


def file_names(labels: list[str]) -> list[str]:
    """Return a part of a file's name per label, each different: signs that file systems refuse become _."""
    safe = [re.sub(r"[^A-Za-z0-9.-]+", "_", label)[:60] for label in labels]
    folded = [name.casefold() for name in safe]
    return [f"{name}-{n}" if folded.count(name.casefold()) > 1 else name for n, name in enumerate(safe, 1)]


def _join(
    ensemble: Ensemble, scans: ScanInputs, parts: PartFiles, out: Path, suffix: Format, shown: Selection
) -> Counts:
    """Join the parts to the tables of the command, one part in memory at a time."""
    summaries = Summaries()
    refused = [quarantine_table(scans.refused)]
    predicted = flagged = 0
    for other in ("csv", "parquet"):
        if other != suffix:
            (out / f"predictions.{other}").unlink(missing_ok=True)  # of an earlier command
    with TableWriter(out / f"predictions.{suffix}") as table:
        for number in range(_count(scans)):
            rows = parts.read(number, "predictions")
            table.append(rows)
            summaries.add(rows)
            shown.add(rows)
            once = rows[rows["label"] == ensemble.labels[0]]
            predicted, flagged = predicted + len(once), flagged + int(once["flagged"].sum())
            refused.append(parts.read(number, "quarantine"))
        if not scans.scans:
            table.append(tidy_table([], [], ensemble, None))
    quarantine = pd.concat(refused, ignore_index=True)
    with TableWriter(out / "quarantine.csv") as table:
        table.append(quarantine)
    summaries.write(out)
    return Counts(predicted, flagged, len(quarantine))
