"""Write one trained classifier of a results folder as a self-contained model folder."""

import logging
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from octdino import __version__
from octdino.config.cohort_size import DENSITY_SCANS
from octdino.config.names import Readout
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
from octdino.inference.heads import Head
from octdino.inference.scan_model import Network, density_tensors
from octdino.inference.trained_network import open_classifier
from octdino.inference.trained_runs import TrainedRun
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
    check_predictions(run.predictions, cohort, opened.network, opened.readout, opened.head)
    density, ood = fitted_density(cohort, metadata.fold, opened.network)
    weights = {
        BACKBONE: opened.network.backbone.state_dict(), HEAD: opened.tensors, DENSITY: density_tensors(density)
    }  # fmt: skip
    values = {
        "format": 1,
        "arm": metadata.arm,
        "backbone": metadata.backbone,
        "spec": {
            "timm": model.timm, "args": model.args, "in_chans": opened.network.input.image.channels,
            "size": opened.network.input.size,
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


def check_predictions(predictions: Predictions, cohort: Cohort, network: Network, readout: Readout, head: Head) -> None:
    """Check that network and head give the probabilities of predictions.csv.

    Raises:
        UserError: they differ, or a scan is not in the store.
    """
    table, path = predictions.table, predictions.folder / "predictions.csv"
    places = cohort.manifest["scan_id"].reset_index().set_index("scan_id")["index"].reindex(table["scan_id"])
    if places.isna().any():
        raise UserError(f"{path}: scan {places.index[int(np.argmax(places.isna()))]} is not in the store")
    rows = places.to_numpy(np.int64)
    order = np.argsort(rows)
    found = np.empty((len(rows), len(predictions.labels)))
    for features, part in features_of(cohort, network, rows[order]):
        found[order[part]] = head(network.part(features, readout))
    difference = np.abs(found - predictions.probabilities()).max(axis=1)
    if (worst := float(difference.max(initial=0))) > CLOSE:
        scan = table["scan_id"].iloc[int(np.argmax(difference))]
        raise UserError(
            f"{path}: scan {scan}: the weights give another probability, by {worst:.2g}; run classify again"
        )


def features_of(cohort: Cohort, network: Network, rows: np.ndarray) -> Iterator[tuple[np.ndarray, slice]]:
    """Yield the features of the scans at `rows` (ascending), block by block, and which part of `rows` they are."""
    for start in range(0, len(rows), BLOCK):
        part = slice(start, min(start + BLOCK, len(rows)))
        yield network.features(cohort.images(rows[part])), part


def fitted_density(cohort: Cohort, fold: int, network: Network) -> tuple[FeatureDensity, dict[str, Any]]:
    """Return the density of the training scans' features, and what model.json says about it."""
    split = cohort.split_of(fold).to_numpy()
    features, patients = {}, {}
    for name in SPLIT_NAMES:
        rows = np.flatnonzero(split == name)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), DENSITY_SCANS)).astype(int)] if len(rows) else rows
        blocks = [block for block, _ in features_of(cohort, network, rows)]
        features[name] = np.concatenate(blocks) if blocks else np.zeros((0, 1))
        patients[name] = cohort.manifest["patient"].iloc[rows].to_numpy()
    density = fit_density(features["train"])
    distances = density.distances(features["val"])
    threshold = accepting_threshold(distances, patients["val"], ACCEPTED)
    accepted_test = None
    if len(features["test"]):
        accepted_test = float((density.distances(features["test"]) <= threshold).mean())
    return density, {
        "readout": network.widest,
        "threshold": threshold,
        "accepted": ACCEPTED,
        "accepted_test": accepted_test,
        "n_train_scans": len(features["train"]),
        "n_val_scans": len(distances),
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
