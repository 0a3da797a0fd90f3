"""Iterative stratification of multi-label groups: train/val/test splits, and the nested order of label fractions.

Iterative stratification (Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10) on one label vector per
group, then random moves and swaps of groups that improve the balance: no library does grouped multi-label splits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from iterstrat.ml_stratifiers import IterativeStratification

ENOUGH = 3  # positive groups of a label from which on every split must have one
STEPS = 5000  # moves or swaps that are tried
CANDIDATES = 256  # groups that are compared for the next place in the order


@dataclass(frozen=True)
class Groups:
    """Split groups and their label counts.

    Attributes:
        positive: bool [G, L], any scan of the group is positive for the label; further columns may be traits such as
            the trial, which are balanced like labels.
        n_positive: float [G, L], positive scans.
        n_known: float [G, L], scans with this label known.
    """

    positive: np.ndarray
    n_positive: np.ndarray
    n_known: np.ndarray

    def __len__(self) -> int:
        return len(self.positive)

    def take(self, rows: np.ndarray) -> "Groups":
        """The groups `rows`."""
        return Groups(self.positive[rows], self.n_positive[rows], self.n_known[rows])


def stratify(groups: Groups, shares: np.ndarray, seed: int) -> np.ndarray:
    """Return the split of each group, int [G]; every split gets at least one group.

    Args:
        groups: G of them, at least as many as splits.
        shares: [S], sums to 1.
        seed: of every random choice.
    """
    assert len(groups) >= len(shares), (len(groups), shares)
    state = np.random.RandomState(seed)  # the library requires this class
    vectors = groups.positive.astype(bool)
    if vectors.any():
        split_of = np.asarray(IterativeStratification(vectors, shares.copy(), state))
    else:
        split_of = state.choice(len(shares), len(groups), p=shares)
    return _improve(groups, split_of, shares, np.random.default_rng(seed))


def _improve(groups: Groups, split_of: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Improve the balance by random moves and swaps of groups; the sums per split determine the imbalance."""
    negative = groups.n_known > groups.n_positive
    each = np.concatenate(
        [groups.positive, negative, groups.n_positive, groups.n_known, np.ones((len(split_of), 1))],
        axis=1, dtype=np.float64,
    )  # fmt: skip
    n_splits = len(shares)
    sums = np.stack([each[split_of == s].sum(axis=0) for s in range(n_splits)])
    imbalance = _imbalance_of(each.sum(axis=0), shares)
    best = imbalance(sums)
    split_of = split_of.copy()
    for _ in range(STEPS):
        one, other = rng.integers(len(split_of), size=2)
        swap = rng.random() < 0.5
        source, target = split_of[one], split_of[other] if swap else rng.integers(n_splits)
        if source == target:
            continue
        change = each[one] - each[other] if swap else each[one]
        sums[source] -= change
        sums[target] += change
        if (now := imbalance(sums)) < best - 1e-12:
            best, split_of[one] = now, target
            split_of[other] = source if swap else split_of[other]
        else:
            sums[source] += change
            sums[target] -= change
    return split_of


def _imbalance_of(total: np.ndarray, shares: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return a function from sums per split [S, 4 L + 1] to imbalance: empty cells, size, prevalence, positives."""
    labels = (len(total) - 1) // 4
    cells, positives, known = slice(0, 2 * labels), slice(2 * labels, 3 * labels), slice(3 * labels, 4 * labels)
    wanted = shares[:, None] * total
    weight = np.zeros_like(wanted)  # of squared deviations, whose means over splits and labels count
    for columns, factor in ((slice(-1, None), 20), (slice(0, labels), 2), (known, 1)):
        weight[:, columns] = factor / weight[:, columns].size
    weight = (weight / np.maximum(wanted, 1) ** 2).ravel()
    enough = total[cells] >= ENOUGH
    overall = total[positives] / np.maximum(total[known], 1)
    spread = 1 / np.sqrt(np.maximum(overall * (1 - overall), 0.01))
    drift_weight = 4 / (len(shares) * labels)

    def imbalance(sums: np.ndarray) -> float:
        off = (sums - wanted).ravel()
        drift = ((sums[:, positives] / np.maximum(sums[:, known], 1) - overall) * spread).ravel()
        empty = np.count_nonzero((sums[:, cells] == 0) & enough) + 10 * np.count_nonzero(sums[:, -1] == 0)
        return float(10 * empty + (off * weight).dot(off) + drift_weight * drift.dot(drift))

    return imbalance


def nested_order(groups: Groups, seed: int) -> np.ndarray:
    """Return the groups in the order in which growing label fractions take them, int [G]; each prefix is balanced.

    Greedy: the next group is the one that brings the prefix nearest to the whole and adds a positive (and a negative)
    of the most frequent labels that still lack one.
    """
    rng = np.random.default_rng(seed)
    each = np.concatenate(
        [groups.positive, groups.n_positive, groups.n_known, groups.n_known > groups.n_positive], axis=1, dtype=float
    )
    labels = groups.positive.shape[1]
    has, positives, known, negatives = (slice(i * labels, (i + 1) * labels) for i in range(4))
    total = each.sum(axis=0)
    whole, common = total[has] / len(each), total[[*range(labels)]] / len(each)
    overall = total[positives] / np.maximum(total[known], 1)
    spread = np.sqrt(np.maximum(overall * (1 - overall), 0.01))
    left = rng.permutation(len(each))
    prefix = np.zeros(each.shape[1])
    out: list[int] = []
    while len(left):
        trial = prefix + each[left[:CANDIDATES]]  # [candidates, 4 * labels]
        share = (((trial[:, has] / (len(out) + 1) - whole) / np.sqrt(np.maximum(whole * (1 - whole), 0.02))) ** 2).mean(
            1
        )
        drift = (((trial[:, positives] / np.maximum(trial[:, known], 1) - overall) / spread) ** 2).mean(1)
        lacking = ((trial[:, has] == 0) * common).sum(1) + ((trial[:, negatives] == 0) * common).sum(1)
        best = int(np.argmin(share + drift + 2 * lacking))
        prefix += each[left[best]]
        out.append(int(left[best]))
        left = np.delete(left, best)
    return np.array(out, dtype=np.int64)
