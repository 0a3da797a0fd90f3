"""Which labelled scans an arm trains on, validates on and is tested on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from octdino.config.cohort import ImageSettings
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import fraction_patients
from octdino.data.schemas.csv_schemas import SPLIT_NAMES
from octdino.errors import UserError


@dataclass(frozen=True)
class Labelled:
    """The labelled scans of one fold, and of the training ones only those of the fraction's patients.

    Attributes:
        images: uint8 [N, C, H, W].
        manifest: their rows; column `split` is this fold's.
        labels: their names.
        truth: float32 [N, L], NaN where missing.
        mean, std: of all training patients of the fold, labelled or not, [C].
        source: hash of the store's content.
        image: how a file became one of the images.
        exclusive: whether each scan has exactly one label: one softmax over all, in place of one sigmoid each.
    """

    images: Tensor
    manifest: pd.DataFrame
    labels: list[str]
    truth: np.ndarray
    mean: list[float]
    std: list[float]
    source: str
    image: ImageSettings
    exclusive: bool = False

    def rows(self, *splits: str) -> np.ndarray:
        """Positions of the scans in these splits, ascending."""
        return np.flatnonzero(self.manifest["split"].isin(splits))


def read_labelled(store_file: Path, fraction: float, fold: int) -> Labelled:
    """Read what an arm may see.

    Raises:
        UserError: the cohort has no labels, a split is empty, or no label has a positive patient in the fraction.
    """
    cohort = read_cohort(store_file)
    if not cohort.labels:
        raise UserError(f"{store_file.with_name('manifest.csv')}: no label column; there is nothing to classify")
    manifest = cohort.manifest.assign(split=cohort.split_of(fold))
    chosen = fraction_patients(cohort.splits, fold, fraction)
    rows = np.flatnonzero(cohort.labelled & ((manifest["split"] != "train") | manifest["patient"].isin(chosen)))
    mean, std = cohort.statistics(fold)
    found = Labelled(
        images=torch.from_numpy(cohort.images(rows)),
        manifest=manifest.iloc[rows].reset_index(drop=True),
        labels=cohort.labels,
        truth=cohort.truth[rows],
        mean=mean,
        std=std,
        source=cohort.source,
        image=cohort.image,
        exclusive=cohort.exclusive,
    )
    for split in SPLIT_NAMES:
        if not len(found.rows(split)):
            raise UserError(f"{store_file.with_name('splits.csv')}: no labelled {split} scan in fold {fold}")
    train = found.truth[found.rows("train")]
    if not np.nansum(train):
        raise UserError(
            f"fraction {fraction}: none of its {len(chosen)} training patients is positive for any label; "
            "choose a larger fraction in classify.fractions"
        )
    return found
