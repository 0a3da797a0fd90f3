"""Named random number streams, independent of the order of use, and stratified sampling."""

import zlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def stream(seed: int, *keys: int | str) -> np.random.Generator:
    """Return the random generator of these keys: the same keys give the same numbers in any order of calls."""
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def stratified_uniform(rng: np.random.Generator, n: int) -> Floats:
    """Sample n shuffled uniform values, one per n-th of (0, 1): a cohort of 12 patients still spans mild to severe."""
    return (rng.permutation(n) + rng.uniform(0.02, 0.98, n)) / n


def stratified_normal(rng: np.random.Generator, n: int) -> Floats:
    """Sample n shuffled standard normal values, one per n-th of the distribution."""
    return np.asarray(ndtri(stratified_uniform(rng, n)), float)


def as_normal(values: Floats) -> Floats:
    """Return the normal scores of the values' ranks: the order stays, the distribution is standard normal."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(ndtri((ranks + 0.5) / len(values)), float)


def balanced_normal(rng: np.random.Generator, reference: Floats, block: int = 6) -> Floats:
    """Sample standard normal values, stratified within every `block` neighbors in the order of `reference`.

    The two are then unrelated in a small cohort too, not only on average over many.
    """
    result = np.empty(len(reference))
    order = np.argsort(reference, kind="stable")
    for start in range(0, len(order), block):
        members = order[start : start + block]
        result[members] = stratified_normal(rng, len(members))
    return result


def weighted_choice(rng: np.random.Generator, weights: Floats, share: float) -> Bools:
    """Sample a share of the rows without replacement, at least one, with probability by weight: bool [n]."""
    count = max(1, round(share * len(weights)))
    order = np.argsort(-np.log(rng.uniform(1e-9, 1, len(weights))) / np.maximum(weights, 1e-9), kind="stable")
    mask = np.zeros(len(weights), bool)
    mask[order[:count]] = True
    return mask
