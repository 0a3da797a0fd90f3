"""Which scans are explained, and the retrieval gallery: the scans among which their neighbors are sought."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from octdino.config import ExplainSettings
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.sampling_units import Unit
from octdino.errors import UserError
from octdino.explain.lesion_masks import Truth, read_truth
from octdino.training.random_seeds import seed_of


@dataclass(frozen=True)
class Scans:
    """Scans and what is known of them.

    Attributes:
        images: uint8 [N, C, H, W].
        scan_id: [N].
        truth: labels float32 [N, L], NaN where missing.
        patient: int64 [N]; the same number in all `Scans` of a run.
        cst: µm [N], NaN where unknown.
    """

    images: Tensor
    scan_id: np.ndarray
    truth: np.ndarray
    patient: np.ndarray
    cst: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Shown:
    """What a run explains.

    Attributes:
        cohort: all scans.
        scans: those whose maps are measured and shown, N of them.
        masks: their ground-truth masks; None where no scan has a mask.
        gallery: the labeled scans among which neighbors are sought, `scans` among them (all if none is labeled).
        gallery_rows: positions of the gallery in the manifest, ascending.
        places: positions of `scans` in the gallery, ascending.
        mean, std: of the training patients of fold 0, [C].
    """

    cohort: Cohort
    scans: Scans
    masks: Truth | None
    gallery: Scans
    gallery_rows: np.ndarray
    places: np.ndarray
    mean: list[float]
    std: list[float]

    @property
    def labels(self) -> list[str]:
        """L names."""
        return self.cohort.labels

    @cached_property
    def unit(self) -> Unit:
        """Whether patients are known, and the words for them."""
        return self.cohort.unit


def read_shown(store_file: Path, settings: ExplainSettings, masks_root: Path | None) -> Shown:
    """Read what is explained: of `settings.split` the scans with a mask or a label, evenly thinned.

    Args:
        masks_root: folder below which the manifest's masks lie; None: no masks are read.

    Raises:
        UserError: a file is missing or damaged, or the split is empty.
    """
    cohort = read_cohort(store_file)
    manifest, labels, truth, labeled = cohort.manifest, cohort.labels, cohort.truth, cohort.labeled
    masked = (manifest["mask"].fillna("") != "").to_numpy(bool) & (masks_root is not None)
    inside = np.ones(len(manifest), bool)
    if settings.split != "all":
        inside = (cohort.split_of(0) == settings.split).to_numpy(bool)
    known = inside & (labeled | masked)
    rows = _thinned(known if known.any() else inside, settings.scans)
    if not len(rows):
        raise UserError(f"{store_file.with_name('manifest.csv')}: no {settings.split} scan; choose another split")
    others = (labeled if labeled.any() else np.ones(len(manifest), bool)).copy()
    others[rows] = False
    gallery_rows = np.sort(np.concatenate([rows, _thinned(others, max(settings.retrieval_gallery - len(rows), 0))]))
    images = cohort.images(gallery_rows)
    gallery = _scans(images, manifest.iloc[gallery_rows], truth[gallery_rows])
    places = np.searchsorted(gallery_rows, rows)
    masks = None
    if masks_root is not None and masked[rows].any():
        paths = manifest["mask"].fillna("").iloc[rows].tolist()
        masks = read_truth(masks_root, paths, cohort.boxes[rows], images.shape[2:], labels)
    mean, std = cohort.statistics(0)
    scans = _part(gallery, places) if len(places) < len(gallery) else gallery
    return Shown(cohort, scans, masks, gallery, gallery_rows, places, mean, std)


def _scans(images: np.ndarray, rows: pd.DataFrame, truth: np.ndarray) -> Scans:
    patient = pd.factorize(rows["patient"])[0].astype(np.int64)
    cst = rows["cst"].to_numpy(np.float64, na_value=np.nan)
    return Scans(torch.from_numpy(images), rows["scan_id"].to_numpy(), truth, patient, cst)


def _part(scans: Scans, rows: np.ndarray) -> Scans:
    return Scans(scans.images[rows], scans.scan_id[rows], scans.truth[rows], scans.patient[rows], scans.cst[rows])


def _thinned(chosen: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows that a mask chooses, at random but always the same, ascending."""
    rows = np.flatnonzero(chosen)
    if len(rows) <= count:
        return rows
    sampled = np.random.default_rng(seed_of("explain", len(rows))).choice(rows, count, replace=False)
    return np.sort(sampled)
