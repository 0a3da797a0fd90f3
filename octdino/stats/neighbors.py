"""k-nearest-neighbor classification (kNN): votes by cosine similarity, and plain Euclidean kNN."""

import numpy as np


def knn_scores(
    queries: np.ndarray,
    bank: np.ndarray,
    labels: np.ndarray,
    query_patients: np.ndarray,
    bank_patients: np.ndarray,
    *,
    k: int,
    temperature: float = 0.07,
    chunk: int = 256,
) -> np.ndarray:
    """Return weighted kNN votes by cosine similarity (Wu et al. 2018, https://arxiv.org/abs/1805.01978, sec. 3.4).

    A scan of the same patient is never a neighbor: adjacent slices are near-duplicates.

    Args:
        queries: float32 [Q, D]; bank: float32 [N, D]; any length (normalized here).
        labels: of the bank, float32 [N, L], NaN where missing (such a neighbor does not vote on that label).
        query_patients, bank_patients: int64 [Q], [N].
        chunk: queries whose similarities are in memory at a time.

    Returns:
        Share of votes float32 [Q, L] in [0, 1]; 0.5 where there is no vote.
    """
    queries, bank = _unit(queries), _unit(bank)
    values = np.concatenate([np.nan_to_num(labels), ~np.isnan(labels)], axis=1, dtype=np.float32)  # [N, 2L]
    k = min(k, len(bank))
    votes = []
    for low in range(0, len(queries), chunk):
        part = slice(low, low + chunk)
        similarity = queries[part] @ bank.T
        similarity[query_patients[part, None] == bank_patients] = -np.inf
        nearest = np.argpartition(similarity, -k, axis=1)[:, -k:]  # in no order
        weight = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        votes.append((weight[:, None] @ values.take(nearest, axis=0))[:, 0])
    positive, total = np.split(np.concatenate(votes), 2, axis=1)
    share: np.ndarray = np.divide(positive, total, out=np.full_like(total, 0.5), where=total > 0)
    return share


def euclidean_knn(
    queries: np.ndarray, bank: np.ndarray, classes: np.ndarray, k: int = 5, chunk: int = 256
) -> np.ndarray:
    """Return the most frequent class among the k nearest by Euclidean distance, each with one vote, int64 [Q].

    The plain kNN that many reports use; ties go to the first class, as in scikit-learn.

    Args:
        queries: [Q, D]; bank: [N, D].
        classes: of the bank, int64 [N].
    """
    one_hot, half_square = np.eye(classes.max() + 1)[classes], (bank**2).sum(1) / 2
    k = min(k, len(bank))
    found = []
    for low in range(0, len(queries), chunk):
        closeness = queries[low : low + chunk] @ bank.T - half_square  # highest where the distance is lowest
        nearest = np.argpartition(closeness, -k, axis=1)[:, -k:]
        found.append(one_hot[nearest].sum(1).argmax(1))
    return np.concatenate(found)


def _unit(features: np.ndarray) -> np.ndarray:
    """Return features [N, D] with length 1; a feature of zeros stays one."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: np.ndarray = features / np.maximum(length, 1e-12)
    return unit
