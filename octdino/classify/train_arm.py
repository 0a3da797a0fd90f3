"""Train the classifier of one arm and predict validation and test patients."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from octdino import made_by
from octdino.classify.finetune import Finetune, plain_batches
from octdino.classify.labeled_scans import Labelled, read_labelled
from octdino.classify.linear import fit_linear
from octdino.classify.losses import probabilities
from octdino.classify.mlp import fit_mlp, mlp_logits
from octdino.config import Arm, ClassifySettings, ModelSettings
from octdino.data.predictions import check_probabilities, write_predictions
from octdino.data.schemas.metadata import Input
from octdino.errors import UserError
from octdino.models.backbones import extract_features
from octdino.models.initial_weights import start_backbone
from octdino.models.weights_file import write_weights
from octdino.stats.calibration import calibration_of
from octdino.stats.neighbors import knn_scores
from octdino.stats.thresholds import choose_threshold
from octdino.training.checkpoints import RunState
from octdino.training.determinism import ask_for_determinism
from octdino.training.distributed import is_rank0, process_group, world_size
from octdino.training.precision import pick_device, resolve_precision
from octdino.training.signals import Stopper

log = logging.getLogger("octdino.classify")


@process_group()
def classify(
    arm: str,
    settings: ClassifySettings,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    pretrained: Path | None,
    fraction: float,
    fold: int,
    seed: int,
    out: Path,
) -> None:
    """Train `arm` and write predictions.csv, classifier.safetensors and classifier.json to `out`.

    Args:
        arm: {init}-linear or {init}-finetune; init is scratch, imagenet or a pretraining run's name.
        store: scans.h5; manifest.csv and splits.csv stand beside it.
        backbone: its name in results/; `model` is what timm makes of it.
        pretrained: folder of the pretraining run, for every init but scratch and imagenet.
        fraction: share of the labelled training patients that may be seen.
        fold, seed: which patients are test; the classifier's randomness.

    Raises:
        UserError: something the user can mend.
        StoppedEarly: a signal came; a fine-tuning run's state is saved.
    """
    try:
        init, mode = Arm.parse(arm)
    except ValueError as error:
        raise UserError(f"arm: {error}") from None
    if world_size() > 1 and mode != "finetune":
        raise UserError(f"--processes: {arm} trains no network; expected 1 for all arms but -finetune")
    ask_for_determinism(settings.deterministic)
    data = read_labelled(store, fraction, fold)
    size = settings.augment.global_size
    network, origin = start_backbone(init, model, data.images.shape[1], size, pretrained=pretrained, seed=seed)
    rows = data.rows("val", "test")
    with ExitStack() as held:
        if mode != "finetune":
            found, tensors, how = _frozen(mode, data, network, settings, rows, seed)
        else:
            fingerprint = {
                "arm": arm,
                "run": [backbone, fraction, fold, seed],
                "model": model.model_dump(mode="json"),
                "settings": settings.needed(arm),
                "origin": origin,
                "source": data.source,
                "patients": sorted(set(data.manifest["patient"].iloc[data.rows("train")])),
                "version": made_by("classify"),
            }
            state = held.enter_context(RunState(out / "state", fingerprint, settings.checkpoint_seconds).locked())
            tuned = Finetune(settings, data, network, pretrained=init != "scratch", seed=seed)
            with Stopper().listening() as stopper:
                tuned.run(state, stopper)
            if not is_rank0():
                return
            found, tensors = probabilities(tuned.logits(rows), data.exclusive), tuned.network.state_dict()
            how = {"best_step": tuned.best_step, "validation_score": tuned.best_score, "processes": world_size()}
            how["precision"] = resolve_precision(tuned.device, settings.precision)
        train = data.manifest.iloc[data.rows("train")]
        metadata = {
            **{"arm": arm, "backbone": backbone, "fraction": fraction, "fold": fold, "seed": seed},
            "exclusive": data.exclusive,
            "model": model.model_dump(mode="json"),
            "input": Input(image=data.image, size=size, mean=data.mean, std=data.std).plain(),
            "pretrained": origin,
            "n_train_patients": int(train["patient"].nunique()),
            "n_train_scans": len(train),
            "settings": settings.needed(arm),
            "octdino": made_by("classify"),
            **how,
        }
        _write(out, data, rows, found, tensors, metadata, settings)
        if mode == "finetune":
            state.discard()


def _frozen(
    mode: str, data: Labelled, network: nn.Module, settings: ClassifySettings, rows: np.ndarray, seed: int
) -> tuple[np.ndarray, dict[str, Tensor], dict[str, Any]]:
    """Features once, then a classifier on them: probabilities [len(rows), L], its tensors, and how it was chosen."""
    device = pick_device()
    network = network.to(device).to(memory_format=torch.channels_last)

    def features(chosen: np.ndarray) -> np.ndarray:
        batches = plain_batches(data, chosen, settings.augment.global_size, device)
        found: np.ndarray = extract_features(network, batches).double().numpy()
        if not np.isfinite(found).all():
            raise UserError(f"{mode}: features of the backbone are not finite numbers; its pretraining diverged")
        return found

    train, val = data.rows("train"), data.rows("val")
    bank, truth = features(train), data.truth[train]
    if mode == "knn":
        who = torch.from_numpy(pd.factorize(data.manifest["patient"])[0].astype("int64"))
        query, known, labels = (torch.from_numpy(x).float() for x in (features(rows), bank, truth))
        found = knn_scores(query, known, labels, who[rows], who[train], k=settings.knn).double().numpy()
        tensors = {"bank": known, "labels": labels}
        return np.clip(found, 0, 1), tensors, {"neighbours": settings.knn}
    if mode == "mlp":
        mlp, epoch = fit_mlp(bank, truth, features(val), data.truth[val], settings, data.exclusive, seed)
        logits, how = mlp_logits(mlp, features(rows)), {"best_epoch": epoch}
        return probabilities(logits, data.exclusive), mlp.state_dict(), how
    head, penalty = fit_linear(bank, truth, features(val), data.truth[val], settings, data.exclusive)
    tensors = {name: torch.from_numpy(value) for name, value in zip(("head.weight", "head.bias"), head, strict=True)}
    logits = features(rows) @ head[0].T + head[1]
    return probabilities(logits, data.exclusive), tensors, {"inverse_penalty": penalty}


def _write(
    out: Path, data: Labelled, rows: np.ndarray, found: np.ndarray, tensors: dict[str, Tensor],
    metadata: dict[str, Any], settings: ClassifySettings,
) -> None:  # fmt: skip
    """Thresholds and calibration from validation patients; then all files, weights first."""
    check_probabilities(found, data.labels, str(out))
    manifest, truth = data.manifest.iloc[rows], data.truth[rows]
    val = (manifest["split"] == "val").to_numpy()
    thresholds = {
        label: choose_threshold(truth[val, index], found[val, index], settings.threshold)
        for index, label in enumerate(data.labels)
    }
    calibration = calibration_of(truth[val], found[val], data.exclusive, manifest["patient"][val].nunique())
    chosen = {"thresholds": thresholds, "thresholds_from": "val", "calibration": calibration}
    chosen["weights_sha256"] = write_weights(out / "classifier.safetensors", tensors)
    write_predictions(out, manifest, data.labels, found, {**metadata, **chosen})
