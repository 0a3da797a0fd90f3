"""Losses, class weights and validation scores: one sigmoid per label, or one softmax if exclusive."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor


def masked_bce(logits: Tensor, truth: Tensor, positive_weight: Tensor | None = None) -> Tensor:
    """Return binary cross-entropy averaged over the known cells of [B, L]; NaN cells have no loss and no gradient."""
    known = ~torch.isnan(truth)
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.nan_to_num(truth), reduction="none", pos_weight=positive_weight
    )
    return (loss * known).sum() / known.sum().clamp(min=1)


def loss_of(logits: Tensor, truth: Tensor, exclusive: bool, weight: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of logits and truth [B, L]; `weight` [L] comes from `balance`."""
    return F.cross_entropy(logits, truth.argmax(1), weight) if exclusive else masked_bce(logits, truth, weight)


def balance(truth: np.ndarray, exclusive: bool) -> Tensor:
    """Return class weights [L] that make classes weigh the same; at most 20, and 1 where a class is missing.

    Independent labels: negatives per positive. Exclusive labels: scans of the mean class per scan of the class.
    """
    positive, known = np.nansum(truth, axis=0), (~np.isnan(truth)).sum(axis=0)
    wanted = known / truth.shape[1] if exclusive else known - positive
    weight = np.where((positive > 0) & (positive < known), wanted / np.maximum(positive, 1), 1.0)
    return torch.from_numpy(np.minimum(weight, 20.0).astype(np.float32))


def validation_score(truth: np.ndarray, scores: np.ndarray, exclusive: bool = False) -> float:
    """Return the score that chooses penalties and epochs: macro AUROC, or accuracy where labels exclude each other.

    Args:
        truth, scores: [N, L]; AUROC is averaged over the labels that have both classes, and is minus the mean log loss
            where no label has. NaN if a score is not finite.
    """
    if not np.isfinite(scores).all():
        return math.nan
    if exclusive:
        return float((scores.argmax(1) == truth.argmax(1)).mean())
    values = [_auroc(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
    known = [value for value in values if value is not None]
    if known:
        return float(np.mean(known))
    return -float(np.nanmean(np.logaddexp(0, scores) - truth * scores))


def _auroc(truth: np.ndarray, score: np.ndarray) -> float | None:
    known = ~np.isnan(truth)
    if len(np.unique(truth[known])) < 2:
        return None
    return float(roc_auc_score(truth[known], score[known]))
