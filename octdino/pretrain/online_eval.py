"""Is it learning, or collapsing? Measures on the features of labelled scans after each epoch."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from octdino.augment import resize, standardise
from octdino.data.schemas.metadata import Input
from octdino.models.backbones import extract_features
from octdino.pretrain.pretraining_data import Watch
from octdino.stats.neighbors import euclidean_knn, knn_scores


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


def watch(backbone: nn.Module, scans: Watch, given: Input, k: int, device: torch.device) -> dict[str, float]:
    """kNN macro AUROC on validation patients, the share answered right where labels exclude each other, and spread."""
    mean, std = (torch.tensor(x, device=device) for x in (given.mean, given.std))
    batches = (resize(standardise(b.to(device), mean, std), given.size) for b in torch.split(scans.images, 256))
    features = extract_features(backbone, batches)
    if not torch.isfinite(features).all():  # diverged: the loop refuses such steps and counts them
        return {}
    found = {"feature_std": feature_spread(features), "rankme": rank_me(features)}
    if scans.both_sides():
        query = torch.from_numpy(scans.is_query)
        bank = torch.from_numpy(scans.labels)[~query]
        patients = scans.patients[query], scans.patients[~query]
        scores = knn_scores(features[query], features[~query], bank, *patients, k=k)
        found["knn_auroc"] = macro_auroc(scans.labels[scans.is_query], scores.numpy())
        if scans.exclusive:
            truth = torch.from_numpy(scans.labels)[query].argmax(1)
            nearest = euclidean_knn(features[query], features[~query], bank.argmax(1))
            found["knn_accuracy"] = float((scores.argmax(1) == truth).double().mean())
            found["knn5_accuracy"] = float((nearest == truth).double().mean())
    return {key: value for key, value in found.items() if np.isfinite(value)}
