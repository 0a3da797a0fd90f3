"""What a pretraining run sees: its scans, their order, and the labelled scans that watch it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from octdino.config.cohort import ImageSettings
from octdino.data.cohort_reader import read_cohort
from octdino.training.distributed import is_rank0, local_slice, shared_batch
from octdino.training.random_seeds import seed_of

BLOCKS = 8  # of the scans, at most, that processes have a share of


@dataclass(frozen=True)
class Data:
    """The scans that train, their manifest rows, and the watchers.

    Attributes:
        images: uint8 [M, C, H, W] of the scans that train and of those that watch, read once and never copied; where
            several processes train, of those that this one needs, and the first one watches.
        rows: int64 [N], the places in `images` of the scans that the method sees; -1 for those that others have.
        manifest: their rows.
        mean, std: of the training patients, [C].
        watch: labelled scans of training and validation patients; never of test patients.
        source: hash of the store's content.
        image: how a file became one of the images.
        kind: which kind of cohort it is (cohort.name); its title is in the manifest.
    """

    images: Tensor
    rows: Tensor
    manifest: pd.DataFrame
    mean: list[float]
    std: list[float]
    watch: "Watch"
    source: str
    image: ImageSettings
    kind: str


@dataclass(frozen=True)
class Watch:
    """Labelled scans for the online kNN: the bank are training patients, the queries validation patients."""

    images: Tensor  # uint8 [M, C, H, W]
    labels: np.ndarray  # float32 [M, L]
    patients: Tensor  # int64 [M]
    is_query: np.ndarray  # bool [M]
    exclusive: bool = False  # each scan has exactly one label

    def can_choose(self) -> bool:
        """Whether some label has both classes among the scans that ask, so that epochs can be told apart."""
        asked = self.labels[self.is_query]
        return self.both_sides() and bool(((asked == 0).any(0) & (asked == 1).any(0)).any())

    def both_sides(self) -> bool:
        """Whether there are labelled scans that ask and such that answer."""
        known = ~np.isnan(self.labels).all(1)
        return bool((known & self.is_query).any() and (known & ~self.is_query).any())


def read_data(
    store_file: Path, fold: int | None, watched: int = 2000, held: Callable[[int], np.ndarray] = np.arange
) -> Data:
    """Read the store and its tables; `fold` None: every scan trains, statistics stay the train patients'.

    Args:
        watched: so many labelled scans, at most, watch.
        held: which of so many training scans this process needs, ascending.

    Raises:
        UserError: a table is missing, or no scan is left to train on.
    """
    cohort = read_cohort(store_file)
    split = cohort.split_of(fold or 0)
    mean, std = cohort.statistics(fold or 0)
    rows = np.arange(len(cohort)) if fold is None else np.flatnonzero(split == "train")
    labels = cohort.truth if cohort.labels else np.full((len(cohort), 1), np.nan, np.float32)
    mine = held(len(rows))
    watchers = _watchers(labels, split, watched)[: None if is_rank0() else 0]
    needed = np.union1d(rows[mine], watchers)
    images = torch.from_numpy(cohort.images(needed))
    places = np.full(len(rows), -1)
    places[mine] = np.searchsorted(needed, rows[mine])
    return Data(
        images=images,
        rows=torch.from_numpy(places),
        manifest=cohort.manifest.iloc[rows].reset_index(drop=True),
        mean=mean,
        std=std,
        watch=Watch(
            images=images[np.searchsorted(needed, watchers)],
            labels=labels[watchers],
            patients=torch.from_numpy(pd.factorize(cohort.manifest["patient"].iloc[watchers])[0].astype("int64")),
            is_query=(split.iloc[watchers] == "val").to_numpy(bool, copy=True),
            exclusive=cohort.exclusive,
        ),
        source=cohort.source,
        image=cohort.image,
        kind=cohort.kind,
    )


def _watchers(labels: np.ndarray, split: pd.Series, limit: int) -> np.ndarray:
    """At most `limit` labelled scans, evenly spread over the table, so that watching stays cheap on large cohorts."""
    rows = np.flatnonzero(~np.isnan(labels).all(1) & split.isin(["train", "val"]).to_numpy())
    if not len(rows):  # no labels at all: the spread of the features can still be watched
        rows = np.flatnonzero(split.isin(["train", "val"]).to_numpy())
    chosen: np.ndarray = rows[np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int))]
    return chosen


def shuffle_blocks(count: int, batch_size: int, seed: int) -> list[Tensor]:
    """`count` rows in blocks, int64; each step takes as many rows of one as of another.

    So a process that has the rows of every batch from here to there needs only some blocks of all images, whatever
    the number of processes, and that number changes no batch.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "blocks"))
    order = torch.randperm(count, generator=generator)
    return list(order.tensor_split(math.gcd(min(batch_size, count), BLOCKS)))


def batch_order(count: int, batch_size: int, seed: int, epoch: int) -> Tensor:
    """The rows of each step of an epoch, int64 [steps, batch]; a rest smaller than a batch waits for another epoch."""
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    batch, blocks = min(batch_size, count), shuffle_blocks(count, batch_size, seed)
    steps, each = count // batch, batch // len(blocks)
    shuffled = [block[torch.randperm(len(block), generator=generator)][: steps * each] for block in blocks]
    return torch.cat([block.view(steps, each) for block in shuffled], dim=1)


def held_rows(batch_size: int, seed: int, count: int) -> np.ndarray:
    """Those of `count` rows that this process's share of any batch can hold, ascending."""
    batch = shared_batch(batch_size, count)
    blocks = shuffle_blocks(count, batch, seed)
    mine, each = local_slice(batch), batch // len(blocks)
    found = torch.cat(blocks[mine.start // each : math.ceil(mine.stop / each)])
    return np.sort(found.numpy())
