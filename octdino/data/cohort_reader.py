"""read_cohort: read a cohort's manifest, splits and store, and check that they belong together.

Every stage reads a cohort here, so that each of them refuses a stale, shuffled or foreign file.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from octdino.config.cohort import ImageSettings
from octdino.data.cohort_words import Words, words_of
from octdino.data.csv_io import label_matrix, labels_of, read_table
from octdino.data.sampling_units import Unit, unit_of
from octdino.data.schemas.csv_schemas import MANIFEST, SPLITS
from octdino.data.schemas.metadata import StoreAttributes
from octdino.data.store import Header, content_hash, read_header, read_images, statistics
from octdino.errors import UserError

log = logging.getLogger("octdino.cohort")


@dataclass(frozen=True)
class Cohort:
    """A cohort with consistent files; images are read on request.

    Attributes:
        store: scans.h5; manifest.csv and splits.csv are in the same folder.
        manifest: N rows, in the order of the store.
        splits: splits.csv, all folds.
        labels: L names.
        truth: float32 [N, L], NaN where missing.
    """

    store: Path
    manifest: pd.DataFrame
    splits: pd.DataFrame
    labels: list[str]
    truth: np.ndarray
    _stored: tuple[Header, StoreAttributes] | None

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def name(self) -> str:
        """The name of the cohort (its title if it has one)."""
        return str(self.manifest["cohort"].iloc[0])

    @property
    def has_store(self) -> bool:
        """Whether there is a store; with `needs_store=False` the tables suffice."""
        return self._stored is not None

    @property
    def header(self) -> Header:
        """The store without its images."""
        assert self._stored is not None, "read_cohort was told that tables are enough"
        return self._stored[0]

    @property
    def attributes(self) -> StoreAttributes:
        """The store's attributes, by their schema."""
        assert self._stored is not None, "read_cohort was told that tables are enough"
        return self._stored[1]

    @property
    def moments(self) -> np.ndarray:
        """Mean and mean square of each image, float64 [N, 2, C]."""
        return self.header.moments

    @property
    def boxes(self) -> np.ndarray:
        """Crop box of each image, int32 [N, 4]: top, left, height, width of the kept part of the file's image."""
        return self.header.boxes

    @property
    def source(self) -> str:
        """Hash of the store's content."""
        return self.attributes.source

    @property
    def image(self) -> ImageSettings:
        """The image settings (crop, size, channels, percentiles) of the store."""
        return self.attributes.settings.image

    @property
    def exclusive(self) -> bool:
        """Whether each labeled scan has exactly one positive label; false without a store."""
        return self.has_store and self.attributes.exclusive

    @property
    def kind(self) -> str:
        """The kind of cohort (`cohort.name`), independent of its title; its title without a store."""
        return (self.attributes.settings.name if self.has_store else None) or self.name

    @property
    def exclusive_from(self) -> tuple[bool, str] | None:
        """Whether labels exclude each other, and the source (setting, cohort or table); None if unknown."""
        origin = self.attributes.exclusive_from if self.has_store else None
        return None if origin is None else (self.exclusive, origin)

    @property
    def decisions(self) -> list[str]:
        """What columns and folders were taken for without the user saying so, as sentences."""
        return self.attributes.decisions if self.has_store else []

    @property
    def unit(self) -> Unit:
        """The sampling unit of splits and intervals: patients, or images where patients are unknown or absent."""
        return unit_of(self.attributes.patients if self.has_store else None, self.manifest)

    @property
    def words(self) -> Words:
        """The nouns for its images, patients and labels."""
        return words_of(self.kind, self.exclusive, self.unit)

    @property
    def labeled(self) -> np.ndarray:
        """Whether any label of a scan is known, bool [N]."""
        known: np.ndarray = (~np.isnan(self.truth)).any(axis=1)
        return known

    def split_of(self, fold: int) -> pd.Series:
        """Return the split (train, val or test) of each scan in this fold: N rows as in the manifest.

        Raises:
            UserError: there is no such fold.
        """
        own = self.splits[self.splits["fold"] == fold]
        if own.empty:
            folds = ", ".join(map(str, sorted(self.splits["fold"].unique())))
            raise UserError(f"{self.store.with_name('splits.csv')}: no fold {fold}; expected one of {folds}")
        return self.manifest["patient"].map(dict(zip(own["patient"], own["split"], strict=True)))

    def statistics(self, fold: int) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation per channel, in [0, 1], over the training patients of this fold.

        Raises:
            UserError: there is none.
        """
        train = (self.split_of(fold) == "train").to_numpy(bool)
        if not train.any():
            raise UserError(f"{self.store.with_name('splits.csv')}: fold {fold} has no training patient")
        return statistics(self.moments[train])

    def images(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read the images of `rows` (ascending): uint8 [n, C, H, W].

        Raises:
            UserError: see `read_images`.
        """
        return read_images(self.store, rows)


def read_cohort(store_file: Path, *, needs_store: bool = True) -> Cohort:
    """Read manifest.csv, splits.csv and scans.h5 but for the images, and check them against each other.

    Args:
        store_file: scans.h5; the tables are in the same folder.
        needs_store: whether a missing store is refused; an existing one must match the tables in any case.

    Raises:
        UserError: one line; a file is missing or breaks its schema, the store is of other scans than the manifest, or
            splits.csv is of other patients.
    """
    manifest = read_table(store_file.with_name("manifest.csv"), MANIFEST)
    splits = read_table(store_file.with_name("splits.csv"), SPLITS)
    _check_splits(store_file, manifest, splits)
    header = read_header(store_file) if needs_store or store_file.exists() else None
    stored = None if header is None else (header, _checked_store(store_file, header, manifest))
    labels = labels_of(manifest)
    cohort = Cohort(store_file, manifest, splits, labels, label_matrix(manifest, labels), stored)
    _check_classes(cohort)
    _warn_of_unranked(cohort)
    return cohort


def _check_classes(cohort: Cohort) -> None:
    """Check that each labeled scan has exactly one positive label where labels exclude each other."""
    one = (~np.isnan(cohort.truth)).all(axis=1) & (np.nansum(cohort.truth, axis=1) == 1)
    if cohort.exclusive and (odd := cohort.labeled & ~one).any():
        row = int(np.argmax(odd))
        raise UserError(
            f"{cohort.store.with_name('manifest.csv')}: row {row + 2}: scan {cohort.manifest['scan_id'].iloc[row]} has "
            f"{int(np.nansum(cohort.truth[row]))} positive labels, or an empty cell; labels exclude each other in the "
            "store, so exactly one is expected; run the cohort stage again"
        )


def _warn_of_unranked(cohort: Cohort) -> None:
    """Warn of labeled training patients without a rank, which no arm uses: labels added after the cohort stage."""
    unranked = cohort.splits[(cohort.splits["split"] == "train") & cohort.splits["rank"].isna()]
    if lost := sorted(set(cohort.manifest["patient"][cohort.labeled]) & set(unranked["patient"])):
        path = cohort.store.with_name("splits.csv")
        log.warning(
            "%s: %d labeled training patients have no rank, such as %s: no arm uses them; run the cohort stage again "
            "with their labels", path, len(lost), lost[0],
        )  # fmt: skip


def _check_splits(store_file: Path, manifest: pd.DataFrame, splits: pd.DataFrame) -> None:
    """Check that each fold has exactly the manifest's patients, and that fold 0 is the manifest's column `split`."""
    table, path = store_file.with_name("manifest.csv"), store_file.with_name("splits.csv")
    if manifest.empty:
        raise UserError(f"{table}: no scan; run the cohort stage again")
    if 0 not in set(splits["fold"]):
        raise UserError(f"{path}: no fold 0; run the cohort stage again")
    patients = set(manifest["patient"])
    for fold, own in splits.groupby("fold"):
        if odd := sorted(patients ^ set(own["patient"])):
            where = f"is in {table.name} and not in fold {fold}" if odd[0] in patients else f"is not in {table.name}"
            raise UserError(f"{path}: patient {odd[0]} {where} ({len(odd)} such); run the cohort stage again")
        _check_groups(path, own, manifest)
    first = splits[splits["fold"] == 0]
    split = manifest["patient"].map(dict(zip(first["patient"], first["split"], strict=True)))
    if (other := (manifest["split"] != split).to_numpy(bool)).any():
        row = int(np.argmax(other))
        scan = manifest.iloc[row]
        raise UserError(
            f"{table}: row {row + 2}: scan {scan['scan_id']} of patient {scan['patient']} is in {scan['split']}; "
            f"{path.name} has this patient in {split.iloc[row]}; run the cohort stage again"
        )


def _check_groups(path: Path, splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    """Check that a fold's split groups are the manifest's; the audit checks that none is in two splits."""
    groups = manifest.drop_duplicates("patient").set_index("patient")["group"]
    if (other := (splits["patient"].map(groups) != splits["group"]).to_numpy(bool)).any():
        row = splits.iloc[int(np.argmax(other))]
        raise UserError(
            f"{path}: patient {row['patient']} is in group {row['group']}, and in {groups[row['patient']]} in "
            "manifest.csv; run the cohort stage again"
        )


def _checked_store(path: Path, header: Header, manifest: pd.DataFrame) -> StoreAttributes:
    """Check that the store's scans are the manifest's, in order, with the same pixels; return its attributes."""
    again = "run the cohort stage again"
    attributes = header.checked_attributes(path)
    if len(header.scan_id) != len(manifest):
        raise UserError(
            f"{path}: its scans are not those of manifest.csv beside it: {len(header.scan_id)} scans, and "
            f"{len(manifest)} in manifest.csv; {again}"
        )
    for row, (stored, named) in enumerate(zip(header.scan_id, manifest["scan_id"], strict=True)):
        if stored != named:
            raise UserError(
                f"{path}: its scans are not those of manifest.csv beside it: row {row + 2} is {named} there and "
                f"{stored} in the store; {again}"
            )
    if attributes.source != content_hash(attributes.settings.image, manifest["path"], manifest["pixel_hash"]):
        raise UserError(f"{path}: its images are not those of manifest.csv beside it: another content hash; {again}")
    return attributes
