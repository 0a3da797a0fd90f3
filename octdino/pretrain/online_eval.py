"""Online evaluation during pretraining: kNN scores and measures of collapse on features of labeled scans."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.augment import resize, standardize
from octdino.data.schemas.metadata import Input
from octdino.models.readouts import extract_features
from octdino.pretrain.pretraining_data import OnlineEvalSet
from octdino.stats.neighbors import euclidean_knn, knn_scores
from octdino.stats.validation_score import macro_auroc


def rank_me(features: Tensor) -> float:
    """Return RankMe, the effective rank: exp of the entropy of normalized singular values (Garrido et al. 2023, eq. 1).

    Features [N, D] are centered first: what all scans share, which in vision transformers is most of a feature's
    length, is no dimension in which they differ.
    """
    singular = torch.linalg.svdvals((features - features.mean(0)).double())
    share = singular / singular.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def feature_spread(features: Tensor) -> float:
    """Return the mean standard deviation per dimension of unit features, times sqrt(D): 1 isotropic, 0 collapsed."""
    return float(F.normalize(features, dim=-1).std(0).mean() * features.shape[1] ** 0.5)


def evaluate_online(
    backbone: nn.Module, scans: OnlineEvalSet, given: Input, k: int, device: torch.device
) -> dict[str, float]:
    """Return kNN scores on validation patients, and the spread of all features, as columns of history.csv.

    Columns: feature_std, rankme; knn_auroc (macro) if there are labels; knn_accuracy (k weighted neighbors) and
    knn5_accuracy (five, Euclidean) if labels exclude each other. Values that are not finite are left out.

    Args:
        given: the backbone's input.
        k: neighbors.
    """
    mean, std = (torch.tensor(x, device=device) for x in (given.mean, given.std))
    batches = (resize(standardize(b.to(device), mean, std), given.size) for b in torch.split(scans.images, 256))
    features = extract_features(backbone, batches)
    if not torch.isfinite(features).all():  # diverged: the trainer skips such steps and counts them
        return {}
    scores = {"feature_std": feature_spread(features), "rankme": rank_me(features)}
    if scans.has_query_and_gallery():
        vectors, patients, query = features.numpy(), scans.patients.numpy(), scans.is_query
        of_queries, of_gallery, gallery = vectors[query], vectors[~query], scans.labels[~query]
        votes = knn_scores(of_queries, of_gallery, gallery, patients[query], patients[~query], k=k)
        scores["knn_auroc"] = macro_auroc(scans.labels[query], votes)
        if scans.exclusive:
            truth = scans.labels[query].argmax(1)
            nearest = euclidean_knn(of_queries, of_gallery, gallery.argmax(1))
            scores["knn_accuracy"] = float((votes.argmax(1) == truth).mean())
            scores["knn5_accuracy"] = float((nearest == truth).mean())
    return {key: value for key, value in scores.items() if np.isfinite(value)}
