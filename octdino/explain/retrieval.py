"""Image retrieval by embeddings: nearest neighbors, precision at k, and the share that is of the same patient."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def nearest(queries: Tensor, gallery: Tensor, apart: Tensor, k: int, chunk: int = 1024) -> Tensor:
    """Return gallery positions of the k nearest by cosine similarity, nearest first: int64 [Q, k], -1 for none.

    Args:
        queries: [Q, D]; gallery: [N, D].
        apart: bool [Q, N], those that may not be neighbors.
    """
    queries, gallery = F.normalize(queries, dim=-1), F.normalize(gallery, dim=-1)
    found = []
    for query, hidden in zip(torch.split(queries, chunk), torch.split(apart, chunk), strict=True):
        similarity = (query @ gallery.T).masked_fill_(hidden, -torch.inf)
        top, index = similarity.topk(min(k, len(gallery)), dim=1)
        found.append(F.pad(torch.where(top > -torch.inf, index, -1), (0, k - top.shape[1]), value=-1))
    return torch.cat(found)


def precision(neighbors: np.ndarray, truth: np.ndarray, gallery_truth: np.ndarray, k: int) -> np.ndarray:
    """Return the share that has the label too: [Q, L], NaN where the query does not have it.

    Neighbours for which the label is unknown do not count.

    Args:
        neighbors: int [Q, >= k], -1 for none; truth: [Q, L]; gallery_truth: [N, L]; 0, 1 or NaN.
    """
    first = neighbors[:, :k]
    values = np.where((first >= 0)[:, :, None], gallery_truth[first], np.nan)  # [Q, k, L]
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        share = np.where(known, values, 0).sum(1) / known.sum(1)
    return np.where(truth == 1, share, np.nan)


def same_patient(neighbors: np.ndarray, patient: np.ndarray, gallery_patient: np.ndarray, k: int) -> np.ndarray:
    """Return the share that is of the query's patient: [Q]; NaN for a patient with no other scan."""
    first = neighbors[:, :k]
    there = first >= 0
    same = (gallery_patient[first] == patient[:, None]) & there
    share = same.sum(1) / np.maximum(there.sum(1), 1)
    several = (gallery_patient[None, :] == patient[:, None]).sum(1) > 1
    found: np.ndarray = np.where(several & there.any(1), share, np.nan)
    return found
