"""Data of a pretraining run: its scans, their order in each epoch, and the labeled scans of the online evaluation."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from octdino.config.cohort import ImageSettings
from octdino.data.cohort_reader import read_cohort
from octdino.data.sampling_units import Unit
from octdino.data.schemas.metadata import Input
from octdino.pretrain.eye_visits import VisitPartners
from octdino.training.distributed import is_rank0, local_slice, shared_batch
from octdino.training.random_seeds import seed_of

BLOCKS = 8  # at most, that the scans are divided into; each process needs some of them


@dataclass(frozen=True)
class PretrainData:
    """The training scans with their manifest rows, and the online-evaluation set.

    Attributes:
        images: uint8 [M, C, H, W] of the training scans and of the online-evaluation set, read once and never copied.
            Of several processes each holds the scans that it needs, and only rank 0 the online-evaluation set.
        rows: int64 [N], index into `images` of each training scan; -1 for those that only other processes hold.
        manifest: the N manifest rows of the training scans.
        mean, std: of the training patients, [C].
        online_eval: labeled scans of training and validation patients; never of test patients.
        source: hash of the store's content.
        image: how a file became one of the images.
        kind: cohort.name of the configuration.
        unit: whether the scans have patients, and the noun for them.
        partners: per training scan, others of which one is the image of the second large view; None where it is the
            scan itself.
    """

    images: Tensor
    rows: Tensor
    manifest: pd.DataFrame
    mean: list[float]
    std: list[float]
    online_eval: "OnlineEvalSet"
    source: str
    image: ImageSettings
    kind: str
    unit: Unit
    partners: VisitPartners | None = None

    @property
    def title(self) -> str:
        """The cohort's name in the manifest."""
        return str(self.manifest["cohort"].iloc[0])

    def input(self, size: int) -> Input:
        """Return what a backbone trained on these scans at `size` px takes as its input."""
        return Input(image=self.image, size=size, mean=self.mean, std=self.std)

    def counted(self) -> str:
        """Return the number of training scans, with that of their patients if these are known."""
        if not self.unit.patients:
            return f"{len(self.manifest)} {self.unit.many}"
        return f"{len(self.manifest)} scans of {self.manifest['patient'].nunique()} {self.unit.many}"


@dataclass(frozen=True)
class OnlineEvalSet:
    """Labeled scans for the online kNN: training patients are its gallery, validation patients its queries."""

    images: Tensor  # uint8 [M, C, H, W]
    labels: np.ndarray  # float32 [M, L]
    patients: Tensor  # int64 [M]
    is_query: np.ndarray  # bool [M]
    exclusive: bool = False  # each scan has exactly one label
    scan_ids: Sequence[str] = ()  # [M], for pictures

    def has_both_classes(self) -> bool:
        """Return whether some label is 0 and 1 among the queries, so that kNN scores can rank epochs."""
        queried = self.labels[self.is_query]
        return self.has_query_and_gallery() and bool(((queried == 0).any(0) & (queried == 1).any(0)).any())

    def has_query_and_gallery(self) -> bool:
        """Return whether there are labeled queries and a labeled gallery."""
        known = ~np.isnan(self.labels).all(1)
        return bool((known & self.is_query).any() and (known & ~self.is_query).any())


def read_data(
    store_file: Path,
    fold: int | None,
    online_eval_max_scans: int = 2000,
    needed_rows: Callable[[int], np.ndarray] = np.arange,
    partners: Callable[[pd.DataFrame], VisitPartners | None] = lambda manifest: None,
) -> PretrainData:
    """Read the store and its tables for a pretraining run.

    Args:
        fold: its training patients' scans train; None: every scan, with the statistics of fold 0's training patients.
        online_eval_max_scans: upper limit of labeled scans in the online-evaluation set.
        needed_rows: which of N training scans this process needs, ascending.
        partners: of a method, by the manifest rows of the training scans; this process needs those of its scans, too.

    Raises:
        UserError: a table is missing, or no scan is left to train on.
    """
    cohort = read_cohort(store_file)
    split = cohort.split_of(fold or 0)
    mean, std = cohort.statistics(fold or 0)
    rows = np.arange(len(cohort)) if fold is None else np.flatnonzero(split == "train")
    labels = cohort.truth if cohort.labels else np.full((len(cohort), 1), np.nan, np.float32)
    manifest, needed = cohort.manifest.iloc[rows].reset_index(drop=True), needed_rows(len(rows))
    others = partners(manifest)
    if others is not None:
        needed = np.union1d(needed, others.of(needed))
    evaluated = _online_eval_rows(labels, split, online_eval_max_scans)[: None if is_rank0() else 0]
    held = np.union1d(rows[needed], evaluated)
    images = torch.from_numpy(cohort.images(held))
    places = np.full(len(rows), -1)
    places[needed] = np.searchsorted(held, rows[needed])
    return PretrainData(
        images=images,
        rows=torch.from_numpy(places),
        manifest=manifest,
        mean=mean,
        std=std,
        online_eval=OnlineEvalSet(
            images=images[np.searchsorted(held, evaluated)],
            labels=labels[evaluated],
            patients=torch.from_numpy(pd.factorize(cohort.manifest["patient"].iloc[evaluated])[0].astype("int64")),
            is_query=(split.iloc[evaluated] == "val").to_numpy(bool, copy=True),
            exclusive=cohort.exclusive,
            scan_ids=cohort.manifest["scan_id"].iloc[evaluated].tolist(),
        ),
        source=cohort.source,
        image=cohort.image,
        kind=cohort.kind,
        unit=cohort.unit,
        partners=others,
    )


def _online_eval_rows(labels: np.ndarray, split: pd.Series, limit: int) -> np.ndarray:
    """At most `limit` labeled scans, evenly spread over the table, so that evaluation stays cheap on large cohorts."""
    rows = np.flatnonzero(~np.isnan(labels).all(1) & split.isin(["train", "val"]).to_numpy())
    if not len(rows):  # no labels at all: the spread of the features can still be measured
        rows = np.flatnonzero(split.isin(["train", "val"]).to_numpy())
    chosen: np.ndarray = rows[np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int))]
    return chosen


def shuffle_blocks(count: int, batch_size: int, seed: int) -> list[Tensor]:
    """Divide `count` rows at random into blocks, int64; each step takes equally many rows from every block.

    So a process that trains on a fixed slice of every batch needs only some blocks of all images, whatever the number
    of processes, and that number changes no batch.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "blocks"))
    order = torch.randperm(count, generator=generator)
    return list(order.tensor_split(math.gcd(min(batch_size, count), BLOCKS)))


def batch_order(count: int, batch_size: int, seed: int, epoch: int) -> Tensor:
    """Return the rows of each step of an epoch, int64 [steps, batch]; a last incomplete batch is dropped."""
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    batch, blocks = min(batch_size, count), shuffle_blocks(count, batch_size, seed)
    steps, each = count // batch, batch // len(blocks)
    shuffled = [block[torch.randperm(len(block), generator=generator)][: steps * each] for block in blocks]
    return torch.cat([block.view(steps, each) for block in shuffled], dim=1)


def held_rows(batch_size: int, seed: int, count: int) -> np.ndarray:
    """Return those of `count` rows that this process's slice of any batch can contain, ascending."""
    batch = shared_batch(batch_size, count)
    blocks = shuffle_blocks(count, batch, seed)
    mine, each = local_slice(batch), batch // len(blocks)
    found = torch.cat(blocks[mine.start // each : math.ceil(mine.stop / each)])
    return np.sort(found.numpy())
