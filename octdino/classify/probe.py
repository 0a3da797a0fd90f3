"""Classifiers on frozen features (embeddings): linear probe, k nearest neighbors and MLP."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.classify.candidates import best_index, finite_or_none, search_of
from octdino.classify.labeled_scans import Labeled
from octdino.classify.linear import fit_linear
from octdino.classify.trained_classifier import TrainedClassifier
from octdino.config import Arm, ClassifySettings
from octdino.data.embeddings import read_embeddings
from octdino.data.schemas.metadata import Input
from octdino.stats.calibration import probabilities
from octdino.stats.neighbors import knn_scores
from octdino.stats.validation_score import validation_score

log = logging.getLogger("octdino.classify")

Fitted = tuple[np.ndarray, dict[str, np.ndarray], dict[str, Any]]  # probabilities, weights by name, how it was chosen


def train_probe(
    arm: Arm, settings: ClassifySettings, data: Labeled, embeddings: Path, backbone: str, fold: int, seed: int
) -> TrainedClassifier:
    """Train the classifier of a linear, knn or mlp arm on embeddings and predict validation and test scans.

    Args:
        embeddings: embeddings.h5 of the arm's init, backbone and fold.
        seed: of the MLP's weights, dropout and order of scans.

    Raises:
        UserError: the embeddings are damaged, or of other scans, another init, backbone or fold.
    """
    read = read_embeddings(embeddings, data.cohort, data.places)
    read.check_run(arm.init, backbone, fold)
    fit = {"linear": _linear, "knn": _knn, "mlp": _mlp}[arm.mode]
    features = read.pooled if arm.mode == "knn" else read.features
    predicted, tensors, how = fit(data, features.astype(np.float64), settings, seed)
    attributes = read.attributes
    return TrainedClassifier(
        probabilities=predicted,
        tensors=tensors,
        model=attributes.model,
        input=Input(image=data.image, size=attributes.size, mean=attributes.mean, std=attributes.std),
        pretrained=attributes.pretrained,
        details={"embeddings": {name: getattr(attributes, name) for name in ("readout", "seed", "octdino")}, **how},
    )


def _linear(data: Labeled, features: np.ndarray, settings: ClassifySettings, seed: int) -> Fitted:
    train, val = data.rows("train"), data.rows("val")
    (weight, bias), how = fit_linear(
        features[train], data.truth[train], features[val], data.truth[val], settings, data.exclusive
    )
    logits = features[data.rows("val", "test")] @ weight.T + bias
    return probabilities(logits, data.exclusive), {"head.weight": weight, "head.bias": bias}, how


def _knn(data: Labeled, features: np.ndarray, settings: ClassifySettings, seed: int) -> Fitted:
    train, rows = data.rows("train"), data.rows("val", "test")
    patient = pd.factorize(data.manifest["patient"])[0]
    gallery, queries = (features[part].astype(np.float32) for part in (train, rows))
    labels = data.truth[train]
    val = (data.manifest["split"].iloc[rows] == "val").to_numpy()
    tried, results = [], []
    for k in settings.knn:
        votes = knn_scores(queries, gallery, labels, patient[rows], patient[train], k=k).astype(np.float64).clip(0, 1)
        score = validation_score(data.truth[rows][val], votes[val], data.exclusive)
        log.info("%d neighbors: %.4f on validation patients", k, score)
        tried.append(votes)
        results.append({"neighbors": k, "validation_score": finite_or_none(score)})
    return tried[best_index(results)], {"bank": gallery, "labels": labels}, search_of(results)


def _mlp(data: Labeled, features: np.ndarray, settings: ClassifySettings, seed: int) -> Fitted:
    from octdino.classify.mlp import fit_mlp  # with torch, which linear and knn do without
    from octdino.data.safetensors_torch import arrays_of
    from octdino.models.mlp import mlp_logits
    from octdino.training.determinism import set_determinism

    set_determinism(settings.deterministic)
    train, val = data.rows("train"), data.rows("val")
    network, how = fit_mlp(
        features[train], data.truth[train], features[val], data.truth[val], settings, data.exclusive, seed
    )
    logits = mlp_logits(network, features[data.rows("val", "test")])
    return probabilities(logits, data.exclusive), arrays_of(network.state_dict()), how
