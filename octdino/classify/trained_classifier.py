"""A trained classifier with its predictions, and the files that it is written to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octdino import made_by
from octdino.classify.labeled_scans import Labeled
from octdino.config import Arm, ClassifySettings, ModelSettings
from octdino.config.models import published_part
from octdino.data.file_hash import sha256_of
from octdino.data.predictions import check_probabilities, write_predictions
from octdino.data.safetensors_numpy import write_arrays
from octdino.data.schemas.metadata import Input
from octdino.stats.calibration import calibration_of
from octdino.stats.thresholds import choose_threshold

WEIGHTS = "classifier.safetensors"


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
    tensors: dict[str, np.ndarray]
    model: dict[str, Any]
    input: Input
    pretrained: str | None
    details: dict[str, Any]


def write_classifier(
    out: Path, data: Labeled, trained: TrainedClassifier, run: dict[str, Any], settings: ClassifySettings
) -> None:
    """Write classifier.safetensors, predictions.csv and classifier.json; thresholds and calibration are of validation.

    Args:
        run: arm, backbone, fraction, fold and seed.

    Raises:
        UserError: a probability is not finite; the training diverged.
    """
    check_probabilities(trained.probabilities, data.labels, str(out))
    rows = data.rows("val", "test")
    manifest, truth = data.manifest.iloc[rows], data.truth[rows]
    val = (manifest["split"] == "val").to_numpy()
    val_truth, val_probabilities = truth[val], trained.probabilities[val]
    write_arrays(out / WEIGHTS, trained.tensors)
    chosen = {
        "thresholds": {
            label: choose_threshold(val_truth[:, index], val_probabilities[:, index], settings.threshold)
            for index, label in enumerate(data.labels)
        },
        "thresholds_from": "val",
        "calibration": calibration_of(val_truth, val_probabilities, data.exclusive, manifest["patient"][val].nunique()),
        "weights_sha256": sha256_of(out / WEIGHTS),
    }
    write_predictions(
        out, manifest, data.labels, trained.probabilities, {**_metadata(run, settings, data, trained), **chosen}
    )


def _metadata(
    run: dict[str, Any], settings: ClassifySettings, data: Labeled, trained: TrainedClassifier
) -> dict[str, Any]:
    """classifier.json without thresholds and calibration."""
    train = data.manifest.iloc[data.rows("train")]
    model = ModelSettings.parse(trained.model, "model")
    published = published_part(Arm.parse(run["arm"]).init, model, trained.pretrained)
    return {
        **run,
        "exclusive": data.exclusive,
        "model": trained.model,
        "input": trained.input.plain(),
        "pretrained": trained.pretrained,
        "n_train_patients": int(train["patient"].nunique()),
        "n_train_scans": len(train),
        "settings": settings.needed(run["arm"]),
        "octdino": made_by("classify"),
        **({"published": published} if published else {}),
        **trained.details,
    }
