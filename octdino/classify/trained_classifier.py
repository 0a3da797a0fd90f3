"""A trained classifier with its predictions, and the files that it is written to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from octdino.classify.labeled_scans import Labeled
from octdino.config import ClassifySettings
from octdino.data.predictions import check_probabilities, write_predictions
from octdino.data.schemas.metadata import Input
from octdino.data.weights_file import write_weights
from octdino.stats.calibration import calibration_of
from octdino.stats.thresholds import choose_threshold


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and what it predicts.

    Attributes:
        probabilities: float64 [n, L] of the validation and test scans, in their order.
        tensors: weights by name, for classifier.safetensors.
        model: what timm makes of the backbone, plain values.
        input: image settings, size, mean and standard deviation of the backbone's input.
        pretrained: SHA-256 of the file of the backbone's first weights; None where they come from no file.
        details: how it was trained and chosen, plain values for classifier.json.
    """

    probabilities: np.ndarray
    tensors: dict[str, Tensor]
    model: dict[str, Any]
    input: Input
    pretrained: str | None
    details: dict[str, Any]


def write_classifier(
    out: Path, data: Labeled, trained: TrainedClassifier, metadata: dict[str, Any], settings: ClassifySettings
) -> None:
    """Write classifier.safetensors, predictions.csv and classifier.json; thresholds and calibration are of validation.

    Args:
        metadata: what else classifier.json holds.

    Raises:
        UserError: a probability is not finite; the training diverged.
    """
    check_probabilities(trained.probabilities, data.labels, str(out))
    rows = data.rows("val", "test")
    manifest, truth = data.manifest.iloc[rows], data.truth[rows]
    val = (manifest["split"] == "val").to_numpy()
    val_truth, val_probabilities = truth[val], trained.probabilities[val]
    chosen = {
        "thresholds": {
            label: choose_threshold(val_truth[:, index], val_probabilities[:, index], settings.threshold)
            for index, label in enumerate(data.labels)
        },
        "thresholds_from": "val",
        "calibration": calibration_of(val_truth, val_probabilities, data.exclusive, manifest["patient"][val].nunique()),
        "weights_sha256": write_weights(out / "classifier.safetensors", trained.tensors),
    }
    write_predictions(out, manifest, data.labels, trained.probabilities, {**metadata, **chosen})
