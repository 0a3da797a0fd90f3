"""Is it learning, or collapsing? Measures on the features of labelled scans after each epoch."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from octdino.augment import resize, standardise
from octdino.models import BackboneSpec
from octdino.models.backbones import extract_features
from octdino.pretrain.data import Watch


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
    """Weighted kNN votes by cosine similarity (Wu et al. 2018, https://arxiv.org/abs/1805.01978, sec. 3.4).

    A scan of the same patient is never a neighbour: neighbouring slices are near-copies and would answer for it.

    Args:
        queries: [Q, D]; bank: [N, D]; any length (normalised here).
        labels: of the bank, float [N, L], NaN where missing (such a neighbour does not vote on that label).
        query_patients, bank_patients: int64 [Q], [N].

    Returns:
        Share of votes float32 [Q, L] in [0, 1]; 0.5 where nobody votes.
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


def macro_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUROC over the labels [N, L] that have both classes among their known values; NaN if none has."""
    values = []
    for truth, score in zip(labels.T, scores.T, strict=True):
        known = ~np.isnan(truth)
        if len(np.unique(truth[known])) == 2:
            values.append(roc_auc_score(truth[known], score[known]))
    return float(np.mean(values)) if values else float("nan")


def rank_me(features: Tensor) -> float:
    """Effective rank: exp of the entropy of the normalised singular values (Garrido et al. 2023, eq. 1).

    Of centred features: what all scans share, which in vision transformers is most of a feature's length, is no
    dimension in which they differ.
    """
    singular = torch.linalg.svdvals((features - features.mean(0)).double())
    share = singular / singular.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def feature_spread(features: Tensor) -> float:
    """Mean standard deviation a dimension of unit-length features, times sqrt(D): 1 is isotropic, 0 collapsed."""
    return float(F.normalize(features, dim=-1).std(0).mean() * features.shape[1] ** 0.5)


def watch(backbone: nn.Module, scans: Watch, spec: BackboneSpec, k: int, device: torch.device) -> dict[str, float]:
    """kNN macro AUROC on validation patients, and the spread of the features."""
    mean, std = (torch.tensor(x, device=device) for x in (spec.mean, spec.std))
    batches = (resize(standardise(b.to(device), mean, std), spec.size) for b in torch.split(scans.images, 256))
    features = extract_features(backbone, batches)
    if not torch.isfinite(features).all():  # diverged: the loop refuses such steps and counts them
        return {}
    found = {"feature_std": feature_spread(features), "rankme": rank_me(features)}
    if scans.both_sides():
        query = torch.from_numpy(scans.is_query)
        bank = torch.from_numpy(scans.labels)[~query]
        scores = knn_scores(features[query], features[~query], bank, scans.patients[query], scans.patients[~query], k=k)
        found["knn_auroc"] = macro_auroc(scans.labels[scans.is_query], scores.numpy())
    return {key: value for key, value in found.items() if np.isfinite(value)}
