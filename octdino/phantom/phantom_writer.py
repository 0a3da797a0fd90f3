"""Writing of the phantom: volumes are rendered in parallel, and the cohort appears when all of it is complete."""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from octdino.config.cohort import PhantomSettings
from octdino.data.olives_names import BIOMARKERS
from octdino.errors import UserError
from octdino.phantom import phantom_files
from octdino.phantom.grading import clinical_values, graded_labels
from octdino.phantom.patients import SLICES_PER_VOLUME, enroll_patients
from octdino.phantom.phantom_files import Row
from octdino.phantom.random_streams import stream
from octdino.phantom.render import render_scan
from octdino.phantom.section import cut_section, examine_eye
from octdino.phantom.study_plan import Volume, volumes_of

VERSION = 1
NOTE = "phantom - not clinical evidence"


@dataclass(frozen=True)
class VolumeRows:
    """One volume's rows of the two tables."""

    biomarkers: list[Row]
    clinical: list[Row]


def write_phantom(settings: PhantomSettings, root: Path, workers: int = 1) -> None:
    """Write a synthetic cohort in the published OLIVES form under `root`, which must not hold anything yet.

    `root` then has `TREX DME/`, `Prime_FULL/` (scans: uint8 gray, 496 x 504), `OLIVES_Dataset_Labels/` (both tables),
    `masks/` (per tabled scan a 16-bit PNG whose bit i marks biomarker i in table order) and `phantom.json`. Bytes
    depend on `settings` alone, not on `workers`. Nothing appears under `root` before all of it is written.

    Raises:
        UserError: `root` exists and is not an empty folder.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: not empty; the phantom is written into a new folder")
    volumes = volumes_of(settings, enroll_patients(settings))
    partial_root = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial_root, ignore_errors=True)
    partial_root.mkdir(parents=True)
    try:
        results = list(_progress(_rendered(settings, volumes, partial_root, workers), volumes))
        phantom_files.write_biomarkers([row for rows in results for row in rows.biomarkers], partial_root)
        phantom_files.write_clinical([row for rows in results for row in rows.clinical], partial_root)
        _write_note(settings, partial_root)
        if root.exists():
            root.rmdir()
        partial_root.rename(root)
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)


def _rendered(settings: PhantomSettings, volumes: list[Volume], root: Path, workers: int) -> Iterator[VolumeRows]:
    job = partial(write_volume, settings, root)
    if workers <= 1:
        yield from map(job, volumes)
        return
    # Spawned, not forked: the caller may hold threads (torch, HDF5)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(job, volumes, chunksize=4)


def _progress(results: Iterable[VolumeRows], volumes: list[Volume]) -> Iterator[VolumeRows]:
    total = sum(len(v.numbers) for v in volumes)
    if sys.stderr.isatty():
        with tqdm(total=total, desc="phantom", unit="scan") as bar:
            for volume, rows in zip(volumes, results, strict=True):
                yield rows
                bar.update(len(volume.numbers))
        return
    done, start, told = 0, time.monotonic(), 0
    for volume, rows in zip(volumes, results, strict=True):
        yield rows
        done += len(volume.numbers)
        if 10 * done // total > told:
            told = 10 * done // total
            print(f"phantom: {done}/{total} scans, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _write_note(settings: PhantomSettings, root: Path) -> None:
    note = {
        "note": NOTE,
        "version": VERSION,
        "settings": settings.model_dump(mode="json"),
        "mask_bits": {str(i): name for i, name in enumerate(BIOMARKERS)},
    }
    (root / "phantom.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def write_volume(settings: PhantomSettings, root: Path, volume: Volume) -> VolumeRows:
    """Render one volume's files below `root` and return its table rows."""
    seed = settings.seed
    case = examine_eye(seed, volume.seen, volume.seen_visit)
    own = case if volume.seen is volume.eye else examine_eye(seed, volume.eye, volume.visit)
    chart = clinical_values(seed, own) if volume.tabled else None
    defects, blanks = dict(volume.defects), dict(volume.blank_labels)
    result = VolumeRows([], [])
    folder = (root / volume.eye.path(volume.visit, 0, volume.side)).parent
    mask_folder = root / "masks" / folder.relative_to(root)
    folder.mkdir(parents=True, exist_ok=True)
    if volume.tabled:
        mask_folder.mkdir(parents=True, exist_ok=True)
    for number in volume.numbers:
        name = volume.eye.path(volume.visit, number, volume.side)
        section = cut_section(case, number % SLICES_PER_VOLUME)
        image, mask = render_scan(seed, case, section, settings.difficulty, number)
        phantom_files.save_scan(image, root / name, defects.get(number, ""))
        if volume.tabled:
            phantom_files.save_mask(mask, mask_folder / Path(name).with_suffix(".png").name)
        eye = volume.eye
        acuity = (chart.bcva, chart.cst) if chart and not volume.chart_missing else (None, None)
        if volume.graded:
            labels: list[int | None] = [
                int(v) for v in graded_labels(seed, eye, volume.visit, section, settings.label_noise)
            ]
            for label in blanks.get(number, ()):
                labels[label] = None
            result.biomarkers.append(("/" + name, number + 1, *labels, eye.eye_id, *acuity, eye.patient_id))
        if volume.charted:
            result.clinical.append(("/" + name, *acuity, eye.eye_id, eye.patient_id))
    _write_untabled_files(settings, volume, folder)
    return result


def _write_untabled_files(settings: PhantomSettings, volume: Volume, folder: Path) -> None:
    """Write files that no table names: fundus images and arrays."""
    rng = stream(settings.seed, "strays", volume.eye.key, volume.visit.index)
    if volume.fundus:
        path = folder / f"fundus_{volume.side}_{volume.visit.name}.tif"
        phantom_files.save_fundus_image(rng, path)
        if volume.eye.trial == "PRIME":  # the same fundus image twice, as in the release
            phantom_files.save_fundus_image(
                stream(settings.seed, "strays", volume.eye.key, volume.visit.index), path.with_suffix(".png")
            )
    if volume.array:
        np.save(folder / "volume_0.npy", rng.integers(0, 255, (4, 62, 63), dtype=np.uint8))
