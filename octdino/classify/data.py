"""Which labelled scans an arm trains on, validates on and is tested on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from octdino.errors import UserError
from octdino.store import read_moments, read_store, statistics
from octdino.tables import MANIFEST, SPLITS, fraction_patients, label_matrix, labels_of, read_table


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
        exclusive: whether each scan has exactly one label: one softmax over all, in place of one sigmoid each.
    """

    images: Tensor
    manifest: pd.DataFrame
    labels: list[str]
    truth: np.ndarray
    mean: list[float]
    std: list[float]
    source: str
    exclusive: bool = False

    def rows(self, *splits: str) -> np.ndarray:
        """Positions of the scans in these splits, ascending."""
        return np.flatnonzero(self.manifest["split"].isin(splits))


def read_labelled(store_file: Path, fraction: float, fold: int) -> Labelled:
    """Read what an arm may see.

    Raises:
        UserError: the cohort has no labels, a split is empty, or no label has a positive patient in the fraction.
    """
    manifest = read_table(store_file.with_name("manifest.csv"), MANIFEST)
    splits = read_table(store_file.with_name("splits.csv"), SPLITS)
    labels = labels_of(manifest)
    if not labels:
        raise UserError(f"{store_file.with_name('manifest.csv')}: no label column; there is nothing to classify")
    side = splits[splits["fold"] == fold].set_index("patient")["split"]
    manifest["split"] = manifest["patient"].map(side)
    chosen = fraction_patients(splits, fold, fraction)
    labelled = manifest[labels].notna().any(axis=1)
    kept = labelled & ((manifest["split"] != "train") | manifest["patient"].isin(chosen))
    rows = np.flatnonzero(kept)
    mean, std = statistics(read_moments(store_file)[(manifest["split"] == "train").to_numpy()])
    store = read_store(store_file, rows)
    found = Labelled(
        images=torch.from_numpy(store.images),
        manifest=manifest.iloc[rows].reset_index(drop=True),
        labels=labels,
        truth=label_matrix(manifest, labels)[rows],
        mean=mean,
        std=std,
        source=str(store.attributes["source"]),
        exclusive=bool(store.attributes.get("exclusive", False)),
    )
    for split in ("train", "val", "test"):
        if not len(found.rows(split)):
            raise UserError(f"{store_file.with_name('splits.csv')}: no labelled {split} scan in fold {fold}")
    train = found.truth[found.rows("train")]
    if not np.nansum(train):
        raise UserError(
            f"fraction {fraction}: none of its {len(chosen)} training patients is positive for any label; "
            "choose a larger fraction in classify.fractions"
        )
    return found
