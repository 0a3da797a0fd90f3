"""Write one trained classifier of a results folder as a self-contained model folder."""

import logging
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino import __version__
from octdino.config.cohort_size import DENSITY_SCANS
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import read_table
from octdino.data.intended_use import NOT_FOR, RESEARCH
from octdino.data.predictions import Predictions
from octdino.data.schemas.csv_schemas import METRICS, SPLIT_NAMES
from octdino.data.schemas.metadata import BackboneMetadata, ClassifierMetadata, write_metadata
from octdino.data.schemas.model_folder import BACKBONE, DENSITY, HEAD, ModelMetadata
from octdino.data.schemas.published_part import continued_part
from octdino.data.weights_file import write_weights
from octdino.errors import UserError
from octdino.inference.scan_model import Network, density_tensors
from octdino.inference.trained_network import OpenedClassifier, open_classifier
from octdino.inference.trained_runs import TrainedRun
from octdino.models.backbones import image_size
from octdino.stats.feature_density import FeatureDensity, accepting_threshold, fit_density
from octdino.training.determinism import set_determinism

log = logging.getLogger("octdino.inference")

ACCEPTED = 0.95  # share of validation scans that the threshold accepts
BLOCK = 256  # scans that are read at a time
UNKNOWN = "0" * 64  # SHA-256 of files that are not written yet
CLOSE = 1e-4  # probabilities of the folder and of predictions.csv; another batch size changes the last bits


def write_model(results: Path, run: TrainedRun, out: Path) -> ModelMetadata:
    """Write model.json, backbone.safetensors, head.safetensors and density.safetensors to `out`.

    The folder's predictions of the run's validation and test scans are compared with predictions.csv first.

    Args:
        results: results/{cohort}.
        run: which classifier, see `octdino.inference.trained_runs.choose`.

    Raises:
        UserError: a file is missing or damaged, the weights are not those of the run, or the predictions differ.
    """
    set_determinism(True)
    cohort = read_cohort(results / "cohort" / "scans.h5")
    metadata = run.predictions.metadata
    opened = open_classifier(results, run.predictions)
    model, spec, pretraining = opened.model, opened.spec, opened.pretraining
    density, ood = checked_density(run.predictions, cohort, opened)
    weights = {
        BACKBONE: opened.network.backbone.state_dict(), HEAD: opened.tensors, DENSITY: density_tensors(density)
    }  # fmt: skip
    values = {
        "format": 1,
        "arm": metadata.arm,
        "backbone": metadata.backbone,
        "spec": {
            "timm": model.timm, "args": model.args, "in_chans": opened.network.input.image.channels,
            "size": image_size(opened.network.backbone, opened.network.input.size),
        },
        "input": opened.network.input.plain(),
        "readout": opened.readout,
        "head": spec.plain(),
        "labels": metadata.labels,
        "exclusive": metadata.exclusive,
        "thresholds": metadata.thresholds,
        "threshold_rule": metadata.settings.threshold,
        "temperature": run.predictions.temperature(),
        "out_of_distribution": ood,
        "validation_score": None if np.isnan(run.score) else run.score,
        "metrics": _metrics(results, metadata) if run.compared else [],  # those of metrics.csv are of other runs
        "intended_use": f"{RESEARCH} {NOT_FOR}",
        "provenance": _provenance(cohort, metadata, pretraining),
        "sha256": dict.fromkeys(weights, UNKNOWN),
    }  # fmt: skip
    checked = ModelMetadata.parse(values, f"{out}/model.json")  # before the weights of an earlier model are replaced
    sha256 = {name: write_weights(out / name, tensors) for name, tensors in weights.items()}
    written = checked.model_copy(update={"sha256": sha256})
    write_metadata(out / "model.json", written)
    log.info("%s: %s of %s, validation score %.4f", out, run.name, cohort.name, run.score)
    return written


def checked_density(
    predictions: Predictions, cohort: Cohort, opened: OpenedClassifier
) -> tuple[FeatureDensity, dict[str, Any]]:
    """Return the density of the training scans' features, and its section of model.json.

    The network and the head are checked against predictions.csv in the same pass: no scan is read twice.

    Raises:
        UserError: they give other probabilities, or a scan of predictions.csv is not in the store.
    """
    predicted_rows = _rows_of(predictions, cohort)
    sampled = _density_rows(cohort, predictions.metadata.fold)
    rows = np.unique(np.concatenate([predicted_rows, *sampled.values()]))
    in_density, in_predictions = np.isin(rows, np.concatenate(list(sampled.values()))), np.isin(rows, predicted_rows)
    probabilities, blocks = np.full((len(rows), len(predictions.labels)), np.nan), []
    for features, part in features_of(cohort, opened.network, rows):
        tested = in_predictions[part]
        if tested.any():
            probabilities[part][tested] = opened.head(opened.network.part(features[tested], opened.readout))
        blocks.append(features[in_density[part]])
    _check_predictions(predictions, probabilities[np.searchsorted(rows, predicted_rows)])
    features, places = np.concatenate(blocks), rows[in_density]
    return _fitted_density(cohort, sampled, features, places, opened.network)


def _rows_of(predictions: Predictions, cohort: Cohort) -> np.ndarray:
    """Return the row in the store of each scan of predictions.csv, int [N]."""
    places = pd.Index(cohort.manifest["scan_id"]).get_indexer(predictions.table["scan_id"])
    if (places < 0).any():
        scan = predictions.table["scan_id"].iloc[int(np.argmin(places))]
        raise UserError(f"{predictions.folder / 'predictions.csv'}: scan {scan} is not in the store")
    return np.asarray(places)


def _check_predictions(predictions: Predictions, probabilities: np.ndarray) -> None:
    """Check that probabilities [N, L] are those of predictions.csv."""
    difference = np.abs(probabilities - predictions.probabilities()).max(axis=1)
    if (worst := float(difference.max(initial=0))) > CLOSE:
        scan = predictions.table["scan_id"].iloc[int(np.argmax(difference))]
        raise UserError(
            f"{predictions.folder / 'predictions.csv'}: scan {scan}: the weights give another probability, by "
            f"{worst:.2g}; run classify again"
        )


def features_of(cohort: Cohort, network: Network, rows: np.ndarray) -> Iterator[tuple[np.ndarray, slice]]:
    """Yield the features of the scans at `rows` (ascending), block by block, and which part of `rows` they are."""
    for start in range(0, len(rows), BLOCK):
        part = slice(start, min(start + BLOCK, len(rows)))
        yield network.features(cohort.images(rows[part])), part


def _density_rows(cohort: Cohort, fold: int) -> dict[str, np.ndarray]:
    """Return the rows of each split, evenly spaced, from which the density and its threshold are computed."""
    split = cohort.split_of(fold).to_numpy()
    sampled = {}
    for name in SPLIT_NAMES:
        rows = np.flatnonzero(split == name)
        sampled[name] = rows[np.linspace(0, len(rows) - 1, min(len(rows), DENSITY_SCANS)).astype(int)]
    return sampled


def _fitted_density(
    cohort: Cohort, sampled: dict[str, np.ndarray], features: np.ndarray, rows: np.ndarray, network: Network
) -> tuple[FeatureDensity, dict[str, Any]]:
    """Return the density of the training scans' features, and its section of model.json.

    Args:
        sampled: see `_density_rows`.
        features: float32 [S, D] of the scans at `rows` [S], ascending, which contain all sampled ones.
    """
    train, val, test = (features[np.searchsorted(rows, sampled[name])] for name in SPLIT_NAMES)
    density = fit_density(train)
    distances = density.distances(val)
    threshold = accepting_threshold(distances, cohort.manifest["patient"].iloc[sampled["val"]].to_numpy(), ACCEPTED)
    return density, {
        "readout": network.widest,
        "threshold": threshold,
        "accepted": ACCEPTED,
        "accepted_test": float((density.distances(test) <= threshold).mean()) if len(test) else None,
        "n_train_scans": len(train),
        "n_val_scans": len(val),
    }


def _metrics(results: Path, metadata: ClassifierMetadata) -> list[dict[str, Any]]:
    """Rows of metrics.csv of this arm, backbone and fraction: over all seeds where there are several."""
    path = results / "evaluate" / "metrics.csv"
    if not path.is_file():  # a run by hand, before evaluate
        return []
    table = read_table(path, METRICS)
    own = table[
        (table["arm"] == metadata.arm)
        & (table["backbone"] == metadata.backbone)
        & (table["fraction"] == metadata.fraction)
    ]
    own = own[own["seed"].isna()] if own["seed"].isna().any() else own
    columns = ["label", "metric", "value", "low", "high", "n_patients"]
    rows = own[columns].astype("object").where(own[columns].notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _provenance(
    cohort: Cohort, metadata: ClassifierMetadata, pretraining: tuple[Path, BackboneMetadata] | None
) -> dict[str, Any]:
    published = metadata.published
    if pretraining is not None:
        folder, run = pretraining
        published = continued_part(run.plain(), str(folder / "backbone.json"))
    return {
        "cohort": cohort.name,
        "kind": cohort.kind,
        "source": cohort.source,
        "scope": pretraining[1].scope if pretraining else None,
        "fraction": metadata.fraction,
        "fold": metadata.fold,
        "seed": metadata.seed,
        "n_train_patients": metadata.n_train_patients,
        "n_train_scans": metadata.n_train_scans,
        "pretrained": metadata.pretrained,
        **({"published": published.model_dump(mode="json", exclude_unset=True)} if published else {}),
        "classifier": metadata.weights_sha256,
        "versions": {"octdino": __version__, **{name: version(name) for name in ("torch", "timm")}},
    }
