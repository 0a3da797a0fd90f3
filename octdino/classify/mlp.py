"""Multi-layer perceptron (MLP) on embeddings, for labels that a linear probe cannot separate."""

import copy
import logging
import math
from typing import Any

import numpy as np
import torch

from octdino.classify.candidates import Result, best_index, finite_or_none, search_of
from octdino.classify.losses import balance, loss_of
from octdino.config import ClassifySettings
from octdino.config.classify import Candidate
from octdino.models.mlp import Mlp, mlp_logits
from octdino.stats.validation_score import validation_score
from octdino.training.optimizers import parameter_groups, set_schedule
from octdino.training.random_seeds import seed_of
from octdino.training.schedules import warmup_cosine

log = logging.getLogger("octdino.classify")


def fit_mlp(
    features: np.ndarray,
    truth: np.ndarray,
    val: np.ndarray,
    val_truth: np.ndarray,
    settings: ClassifySettings,
    exclusive: bool,
    seed: int,
) -> tuple[Mlp, dict[str, Any]]:
    """Train one hidden layer with AdamW; learning rate, length and epoch are chosen on validation patients.

    Args:
        features: of the training scans, [N, D]; val: of the validation scans, [M, D].
        truth, val_truth: [N, L], [M, L], NaN where missing.
        exclusive: one softmax over the labels, in place of one sigmoid each.
        seed: of its weights, its dropout and the order of scans.

    Returns:
        The network from features as they are to logits [N, L], in eval mode, and how it was chosen: the results of all
        candidates and the best one.
    """
    trained = [
        _train(features, truth, val, val_truth, settings, candidate, exclusive, seed)
        for candidate in settings.candidates()
    ]
    results = [result for _, result in trained]
    return trained[best_index(results)][0], search_of(results)


def _train(
    features: np.ndarray,
    truth: np.ndarray,
    val: np.ndarray,
    val_truth: np.ndarray,
    settings: ClassifySettings,
    candidate: Candidate,
    exclusive: bool,
    seed: int,
) -> tuple[Mlp, Result]:
    """Train with one learning rate; the network of its best epoch, and what it reached."""
    x, y = torch.from_numpy(features).float(), torch.from_numpy(truth)
    torch.manual_seed(seed_of(seed, "head"))
    network = Mlp(x, settings.mlp_hidden, truth.shape[1])
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=0.0)
    weight = balance(truth, exclusive) if settings.class_weights == "balanced" else None
    batch = min(settings.batch_size, len(x))
    steps = max(len(x) // batch, 1)
    epochs = max(settings.epochs, math.ceil(candidate.min_steps / steps))
    best, best_epoch, chosen = -math.inf, 0, copy.deepcopy(network)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed_of(seed, "order", epoch)))
        network.train()
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            lr = warmup_cosine((epoch * steps + step) / (epochs * steps), candidate.lr, 0.0, 0.1)
            set_schedule(optimizer, lr, settings.weight_decay)
            torch.autograd.backward(loss_of(network(x[rows]), y[rows], exclusive, weight))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        score = validation_score(val_truth, mlp_logits(network, val), exclusive)
        if score > best:
            best, best_epoch, chosen = score, epoch + 1, copy.deepcopy(network)
    log.info("MLP, %s: %.4f on validation patients after epoch %d of %d", candidate, best, best_epoch, epochs)
    return chosen.eval(), {**candidate._asdict(), "validation_score": finite_or_none(best), "best_epoch": best_epoch}
