"""Which labeled scans an arm trains on, validates on and is tested on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from octdino.config.cohort import ImageSettings
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import fraction_patients
from octdino.data.schemas.csv_schemas import SPLIT_NAMES
from octdino.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Labeled:
    """The labeled scans of one fold, and of the training ones only those of the fraction's patients.

    Attributes:
        cohort: all scans.
        places: positions of the N labeled scans in the manifest and the store, ascending.
        manifest: their rows; column `split` is this fold's.
        truth: float32 [N, L], NaN where missing.
        mean, std: of all training patients of the fold, labeled or not, [C].
    """

    cohort: Cohort
    places: np.ndarray
    manifest: pd.DataFrame
    truth: np.ndarray
    mean: list[float]
    std: list[float]

    @cached_property
    def images(self) -> "Tensor":
        """uint8 [N, C, H, W], read from the store at the first use."""
        import torch  # seconds, which arms on embeddings do without

        return torch.from_numpy(self.cohort.images(self.places))

    @property
    def labels(self) -> list[str]:
        """L names."""
        return self.cohort.labels

    @property
    def source(self) -> str:
        """Hash of the store's content."""
        return self.cohort.source

    @property
    def image(self) -> ImageSettings:
        """How a file became one of the images."""
        return self.cohort.image

    @property
    def exclusive(self) -> bool:
        """Whether each scan has exactly one label: one softmax over all, in place of one sigmoid each."""
        return self.cohort.exclusive

    def rows(self, *splits: str) -> np.ndarray:
        """Positions of the scans in these splits, ascending, among the N labeled scans."""
        return np.flatnonzero(self.manifest["split"].isin(splits))


def read_labeled(store_file: Path, fraction: float, fold: int) -> Labeled:
    """Read the labeled scans that an arm may see.

    Raises:
        UserError: the cohort has no labels, a split is empty, or no label has a positive patient in the fraction.
    """
    cohort = read_cohort(store_file)
    if not cohort.labels:
        raise UserError(f"{store_file.with_name('manifest.csv')}: no label column; there is nothing to classify")
    manifest = cohort.manifest.assign(split=cohort.split_of(fold))
    chosen = fraction_patients(cohort.splits, fold, fraction)
    places = np.flatnonzero(cohort.labeled & ((manifest["split"] != "train") | manifest["patient"].isin(chosen)))
    mean, std = cohort.statistics(fold)
    data = Labeled(cohort, places, manifest.iloc[places].reset_index(drop=True), cohort.truth[places], mean, std)
    for split in SPLIT_NAMES:
        if not len(data.rows(split)):
            raise UserError(f"{store_file.with_name('splits.csv')}: no labeled {split} scan in fold {fold}")
    if not np.nansum(data.truth[data.rows("train")]):
        raise UserError(
            f"fraction {fraction}: none of its {len(chosen)} training patients is positive for any label; "
            "choose a larger fraction in classify.fractions"
        )
    return data
