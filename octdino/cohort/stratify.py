"""Stratification of groups that carry several labels each: sides of a split, and the order in which fractions grow.

Iterative stratification (Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10) on one vector of labels a
group, then moves and swaps of groups while they help: no library does grouped multi-label splits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from iterstrat.ml_stratifiers import IterativeStratification

ENOUGH = 3  # positive groups of a label from which on every side must have one
STEPS = 5000  # moves or swaps that are tried
CANDIDATES = 256  # groups that are compared for the next place in the order


@dataclass(frozen=True)
class Groups:
    """Split groups and what they carry.

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
        """Some of the groups."""
        return Groups(self.positive[rows], self.n_positive[rows], self.n_known[rows])


def assign(groups: Groups, shares: np.ndarray, seed: int) -> np.ndarray:
    """The side of each group, int [G]; every side gets at least one.

    Args:
        groups: G of them, at least as many as sides.
        shares: [S], sums to 1.
        seed: of every random choice.
    """
    assert len(groups) >= len(shares), (len(groups), shares)
    state = np.random.RandomState(seed)  # the library wants this kind
    vectors = groups.positive.astype(bool)
    if vectors.any():
        side = np.asarray(IterativeStratification(vectors, shares.copy(), state))
    else:
        side = state.choice(len(shares), len(groups), p=shares)
    return _refine(groups, side, shares, np.random.default_rng(seed))


def _refine(groups: Groups, side: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move or swap groups at random while the split gets better; sums a side are all that is needed to judge it."""
    negative = groups.n_known > groups.n_positive
    each = np.concatenate(
        [groups.positive, negative, groups.n_positive, groups.n_known, np.ones((len(side), 1))],
        axis=1, dtype=np.float64,
    )  # fmt: skip
    sides = len(shares)
    sums = np.stack([each[side == s].sum(axis=0) for s in range(sides)])
    badness = _judge(each.sum(axis=0), shares)
    best = badness(sums)
    side = side.copy()
    for _ in range(STEPS):
        one, other = rng.integers(len(side), size=2)
        swap = rng.random() < 0.5
        source, target = side[one], side[other] if swap else rng.integers(sides)
        if source == target:
            continue
        change = each[one] - each[other] if swap else each[one]
        sums[source] -= change
        sums[target] += change
        if (now := badness(sums)) < best - 1e-12:
            best, side[one] = now, target
            side[other] = source if swap else side[other]
        else:
            sums[source] += change
            sums[target] -= change
    return side


def _judge(total: np.ndarray, shares: np.ndarray) -> Callable[[np.ndarray], float]:
    """How far sums a side [S, 4 L + 1] are from perfect: empty cells first, then size, prevalence, positive groups."""
    labels = (len(total) - 1) // 4
    cells, positives, known = slice(0, 2 * labels), slice(2 * labels, 3 * labels), slice(3 * labels, 4 * labels)
    wanted = shares[:, None] * total
    scale = 1 / np.maximum(wanted, 1)
    enough = total[cells] >= ENOUGH
    overall = total[positives] / np.maximum(total[known], 1)
    spread = np.sqrt(np.maximum(overall * (1 - overall), 0.01))

    def badness(sums: np.ndarray) -> float:
        off = ((sums - wanted) * scale) ** 2
        drift = ((sums[:, positives] / np.maximum(sums[:, known], 1) - overall) / spread) ** 2
        empty = ((sums[:, cells] == 0) & enough).sum() + 10 * (sums[:, -1] == 0).sum()
        return float(
            10 * empty + 20 * off[:, -1].mean() + 4 * drift.mean() + 2 * off[:, :labels].mean() + off[:, known].mean()
        )

    return badness


def order(groups: Groups, seed: int) -> np.ndarray:
    """Groups in the order in which growing fractions take them, int [G]: every prefix is as balanced as can be.

    Greedy: the next group is the one that brings the prefix nearest to the whole, and that adds a positive (and a
    negative) of the commonest labels that still lack one.
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
