"""Each method learns: on the phantom its linear probe beats the same backbone untrained, for three seeds.

`make learning` trains for the default length, `pretrain.epochs: null`: two hours of processor time. The phantom is
small and plain (large lesions, little speckle), the backbone is a vision transformer, which all methods train.
OCTDINO_LEARNING_EPOCHS and OCTDINO_LEARNING_SEEDS shorten it; .ci/run asks for 100 epochs of one seed.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from octdino.cohort.ingest import build_cohort
from octdino.config import (
    METHODS,
    ClassifySettings,
    CohortSettings,
    ModelSettings,
    PhantomSettings,
    PretrainSettings,
)
from octdino.data.predictions import read_predictions
from octdino.phantom import write_phantom
from octdino.pretrain import pretrain
from tests.embedded import train_arm

MODEL = ModelSettings(timm="vit_tiny_patch16_224", args={"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3})
FEW_STEPS = {"lr": 0.016, "lr_scaling": "linear"}  # large, for a few hundred steps
PROTOTYPES = {
    "weight_decay_end": 0.04, "prototypes": 128, "centering": "sinkhorn", "momentum": 0.9, "freeze_last_layer": 1.0,
}  # fmt: skip
VARIANTS = dict.fromkeys(METHODS, FEW_STEPS) | {
    "dino": {**FEW_STEPS, **PROTOTYPES},
    "dinov2": {**FEW_STEPS, **PROTOTYPES},
    "byol": {**FEW_STEPS, "momentum": 0.9},
    "moco": {**FEW_STEPS, "momentum_start": 0.9},
    "mae": FEW_STEPS,
    "lejepa": {**FEW_STEPS, "regularization": 0.16},  # 0.02 for a batch of 256, times 256 / 32: docs/methods.md
}
EPOCHS = int(os.environ.get("OCTDINO_LEARNING_EPOCHS", "0")) or None
SEEDS = [int(seed) for seed in os.environ.get("OCTDINO_LEARNING_SEEDS", "0 1 2").split()]
SETTINGS = PretrainSettings.parse(
    {
        "methods": list(METHODS),
        "variants": VARIANTS,
        "epochs": EPOCHS,
        "batch_size": 32,
        "eval_every": 100,
        "augment": {"global_size": 48, "local_size": 24, "local_views": 2, "local_scale": [0.2, 0.5]},
    },
    "test",
)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    plain = PhantomSettings(patients=60, visits=2, slices=3, difficulty=0, label_noise=0)
    write_phantom(plain, folder / "files", 1)
    cohort = {"name": "phantom", "root": folder / "files", "image": {"size": [64, 64], "crop": "retina"}}
    build_cohort(CohortSettings.parse(cohort, "test"), folder / "cohort", 1)
    return folder / "cohort/scans.h5"


def probe(arm: str, store: Path, seed: int, pretrained: Path | None, out: Path) -> float:
    """Return the macro AUROC of a linear probe on test patients, over labels with three positive ones."""
    settings = ClassifySettings.parse({"augment": {"global_size": 64}}, "test")
    run = {"store": store, "backbone": "b", "model": MODEL, "fraction": 1.0, "fold": 0, "seed": seed}
    train_arm(arm, settings, pretrained=pretrained, out=out, **run)
    found = read_predictions(out).take("test")
    values = []
    for truth, score in zip(found.truth().T, found.probabilities().T, strict=True):
        if found.table["patient"][truth == 1].nunique() >= 3:
            known = ~np.isnan(truth)
            values.append(roc_auc_score(truth[known], score[known]))
    return float(np.mean(values))


@pytest.mark.learning
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", METHODS)
def test_pretrained_backbone_beats_untrained_one(name: str, seed: int, store: Path, tmp_path: Path) -> None:
    run = {"store": store, "backbone": "b", "model": MODEL, "fold": 0, "seed": seed}
    pretrain(name, SETTINGS, out=tmp_path / "run", **run)
    untrained = probe("scratch-linear", store, seed, None, tmp_path / "untrained")
    trained = probe(f"{name}-linear", store, seed, tmp_path / "run", tmp_path / "trained")
    print(f"{name}, seed {seed}: untrained {untrained:.3f}, pretrained {trained:.3f}")
    assert trained > untrained + 0.02, "more than the noise of a linear probe"
