"""Losses and class weights: one sigmoid per label, or one softmax if exclusive."""

import numpy as np
import torch
import torch.nn.functional as F
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
