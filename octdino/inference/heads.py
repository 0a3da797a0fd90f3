"""Heads of a model folder: from features to the probability of each label, as the classify stage computes them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from octdino.data.schemas.model_folder import HeadSpec
from octdino.models.mlp import Mlp, mlp_logits
from octdino.stats.calibration import probabilities
from octdino.stats.neighbors import knn_scores

MAY_LACK = ("labels",)  # of the training scans that kNN votes with: NaN where missing
Head = Callable[[np.ndarray], np.ndarray]  # features [N, D] to probabilities float64 [N, L]


def make_head(spec: HeadSpec, tensors: dict[str, Tensor], exclusive: bool) -> Head:
    """Return the function from features [N, D] to uncalibrated probabilities float64 [N, L].

    Args:
        tensors: linear: weight [L, D] and bias [L]; mlp: the state of `Mlp`; knn: bank [M, D] and labels [M, L].
        exclusive: one softmax over the labels, in place of one sigmoid each.

    Raises:
        KeyError, RuntimeError: the tensors do not fit the spec.
    """
    if spec.kind == "linear":
        weight, bias = tensors["weight"].double().numpy(), tensors["bias"].double().numpy()
        return lambda features: probabilities(features.astype(np.float64) @ weight.T + bias, exclusive)
    if spec.kind == "mlp":
        assert spec.hidden is not None, "the schema checks it"
        labels = len(tensors["layers.3.bias"])
        network = Mlp(torch.zeros(2, len(tensors["mean"])), spec.hidden, labels)
        network.load_state_dict(tensors)
        return lambda features: probabilities(mlp_logits(network, features), exclusive)
    assert spec.neighbors is not None, "the schema checks it"
    bank, votes, count = tensors["bank"].numpy(), tensors["labels"].numpy(), spec.neighbors
    return lambda features: _votes(features.astype(np.float32), bank, votes, count)


def _votes(queries: np.ndarray, bank: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Votes of the nearest training scans; a new scan is of no training patient."""
    strangers, known = np.full(len(queries), -1), np.zeros(len(bank), np.int64)
    return knn_scores(queries, bank, labels, strangers, known, k=count).astype(np.float64).clip(0, 1)


def head_width(spec: HeadSpec, tensors: dict[str, Tensor]) -> int:
    """Return D, the number of features that the head reads.

    Raises:
        KeyError, IndexError: the tensors do not fit the spec.
    """
    name = {"linear": "weight", "mlp": "layers.0.weight", "knn": "bank"}[spec.kind]
    return int(tensors[name].shape[1])
