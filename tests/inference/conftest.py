"""A small finished run: a cohort with its image files, one pretraining, arms of all modes, and their model folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octdino.config import ClassifySettings, ModelSettings
from octdino.data.cohort_reader import read_cohort
from octdino.inference.model_writer import write_model
from octdino.inference.trained_runs import Wanted, choose, read_runs
from tests.embedded import train_arm
from tests.small import write_small_backbone, write_small_cohort

MODEL = ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 16]})
SETTINGS = ClassifySettings.model_validate(
    {"epochs": 2, "min_steps": [10], "lr": [0.003], "batch_size": 16, "augment": {"global_size": 32},
     "precision": "float32", "mlp_hidden": 8}
)  # fmt: skip
ARMS = ("dino-linear", "dino-knn", "dino-mlp", "scratch-finetune", "scratch-linear")


def write_run(root: Path, exclusive: bool = False) -> Path:
    """Write results/{cohort} of a small run below `root`, and the scans as PNG files below `root`/files."""
    results = root / "results"
    store = write_small_cohort(results / "cohort", exclusive=exclusive)
    pretrained = write_small_backbone(results / "pretrain" / "dino" / "b" / "fold0-seed0", MODEL)
    for arm in ARMS:
        start = pretrained if arm.startswith("dino") else None
        train_arm(
            arm, SETTINGS, store=store, backbone="b", model=MODEL, pretrained=start, fraction=1.0, fold=0, seed=0,
            out=results / "classify" / arm / "b" / "f1" / "fold0-seed0",
        )  # fmt: skip
        for path in (results / "classify" / arm / "b" / "f1").glob("*-embed"):
            path.rename(root / f"embed-{arm}")
    cohort = read_cohort(store)
    for image, path in zip(cohort.images(np.arange(len(cohort))), cohort.manifest["path"], strict=True):
        file = root / "files" / str(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(file)
    return results


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/{cohort} of a small run with two independent labels; its image files lie in ../files."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def exclusive_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `run`, with labels that exclude each other."""
    return write_run(tmp_path_factory.mktemp("exclusive"), exclusive=True)


@pytest.fixture(scope="session")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of dino-linear."""
    out = tmp_path_factory.mktemp("model") / "model"
    write_model(run, choose(read_runs(run), Wanted(arm="dino-linear")), out)
    return out
