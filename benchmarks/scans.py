"""Synthetic scans: the phantom's B-scans of 496 x 504 px as files, their store, and the store's images as PNG files."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from octdino.cohort.ingest import build_cohort
from octdino.config.cohort import CohortSettings, ImageSettings, PhantomSettings
from octdino.data.store import read_images
from octdino.phantom import write_phantom

SIZE = 224  # px of the store, as in `config/olives.yaml`


@dataclass(frozen=True)
class Scans:
    """Folders of the synthetic scans: the tree of files, the cohort's store and tables, and the PNG files."""

    files: Path
    cohort: Path
    png: Path


def write_scans(folder: Path, patients: int) -> Scans:
    """Make the synthetic scans below `folder` unless they exist."""
    scans = Scans(folder / "files", folder / "cohort", folder / "png")
    workers = os.cpu_count() or 1
    if not scans.files.exists():
        write_phantom(PhantomSettings(patients=patients, flaws=False), scans.files, workers)
    if not (scans.cohort / "scans.h5").exists():
        build_cohort(settings_of(scans.files), scans.cohort, workers)
    if not scans.png.exists():
        scans.png.mkdir()
        for index, image in enumerate(read_images(scans.cohort / "scans.h5")):
            Image.fromarray(image[0]).save(scans.png / f"{index:06d}.png")
    return scans


def settings_of(files: Path) -> CohortSettings:
    """Return the settings of a cohort of these files, without a crop."""
    return CohortSettings(name="olives", root=files, image=ImageSettings(size=(SIZE, SIZE), crop="none"))


def many(images: np.ndarray, count: int) -> np.ndarray:
    """Repeat images up to `count`, each repetition shifted by some px: uint8 [count, C, H, W]."""
    out = np.empty((count, *images.shape[1:]), np.uint8)
    for index, begin in enumerate(range(0, count, len(images))):
        part = out[begin : begin + len(images)]
        part[:] = np.roll(images[: len(part)], 3 * index, axis=-1)
    return out
