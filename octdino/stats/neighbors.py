"""k-nearest-neighbor classification (kNN): votes by cosine similarity, and plain Euclidean kNN."""

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_scores(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    query_patients: Tensor,
    bank_patients: Tensor,
    *,
    k: int,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Return weighted kNN votes by cosine similarity (Wu et al. 2018, https://arxiv.org/abs/1805.01978, sec. 3.4).

    A scan of the same patient is never a neighbor: adjacent slices are near-duplicates.

    Args:
        queries: [Q, D]; bank: [N, D]; any length (normalized here).
        labels: of the bank, float [N, L], NaN where missing (such a neighbor does not vote on that label).
        query_patients, bank_patients: int64 [Q], [N].

    Returns:
        Share of votes float32 [Q, L] in [0, 1]; 0.5 where there is no vote.
    """
    queries, bank = F.normalize(queries, dim=-1), F.normalize(bank, dim=-1)
    known = ~torch.isnan(labels)
    values = torch.nan_to_num(labels)
    scores = []
    for query, patients in zip(torch.split(queries, chunk), torch.split(query_patients, chunk), strict=True):
        similarity = query @ bank.T
        similarity[patients[:, None] == bank_patients[None, :]] = -torch.inf
        top, index = similarity.topk(min(k, bank.shape[0]), dim=1)
        weight = torch.exp(top / temperature)[:, :, None] * known[index]
        total = weight.sum(1)
        scores.append(torch.where(total > 0, (weight * values[index]).sum(1) / total.clamp(min=1e-30), 0.5))
    return torch.cat(scores)


def euclidean_knn(queries: Tensor, bank: Tensor, classes: Tensor, k: int = 5, chunk: int = 1024) -> Tensor:
    """Return the most frequent class among the k nearest by Euclidean distance, each with one vote, int64 [Q].

    The plain kNN that many reports use; ties go to the first class, as in scikit-learn.

    Args:
        queries: [Q, D]; bank: [N, D].
        classes: of the bank, int64 [N].
    """
    count = int(classes.max()) + 1
    found = []
    for query in torch.split(queries, chunk):
        nearest = torch.cdist(query, bank).topk(min(k, len(bank)), dim=1, largest=False).indices
        found.append(F.one_hot(classes[nearest], count).sum(1).argmax(1))
    return torch.cat(found)
