"""From nothing to the page, with the real commands, on a phantom small enough for a test."""

import json
from pathlib import Path

import pandas as pd
import pytest

from octdino.data.csv_io import labels_of, read_table
from octdino.data.schemas.csv_schemas import COMPARISON, MANIFEST, METRICS, SUBGROUPS
from tests.workflow.conftest import Workflow

TINY = {
    "cohort": {
        "phantom": {"patients": 12, "visits": 2, "slices": 2},
        "image": {"size": [48, 48], "crop": "retina"},
    },
    "models": {"tiny": {"timm": "test_resnet"}},
    "pretrain": {
        "methods": ["dino"],
        "variants": {
            "dino": {
                "lr": 0.016, "prototypes": 32, "hidden_dim": 32, "bottleneck_dim": 16, "centering": "sinkhorn",
                "momentum": 0.9, "freeze_last_layer": 1.0,
            }
        },
        "backbones": ["tiny"],
        "epochs": 2,
        "batch_size": 16,
        "augment": {"global_size": 32, "local_size": 16, "local_views": 2},
    },
    "classify": {
        "arms": ["scratch-finetune", "dino-linear"],
        "fractions": [0.5, 1.0],
        "epochs": 2,
        "min_steps": 4,
    },
    "evaluate": {"resamples": 100, "min_positive_patients": 2, "min_test_patients": 2},
    "explain": {"resamples": 100, "examples": 2},
    "report": {"examples": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A finished run of the tiny phantom."""
    flow = Workflow(tmp_path_factory.mktemp("tiny"), stub=False)
    flow.configure(TINY)
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    return flow


def test_the_page_is_there_and_nothing_is_left_to_do(flow: Workflow) -> None:
    page = (flow.folder / "results/phantom/report/report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "dino-linear" in page
    assert not flow.rules()


def test_tables_hold_their_contracts(flow: Workflow) -> None:
    results = flow.folder / "results/phantom"
    labels = labels_of(read_table(results / "cohort/manifest.csv", MANIFEST))
    assert len(labels) == 16
    metrics = read_table(results / "evaluate/metrics.csv", METRICS)
    assert set(metrics["arm"]) == {"scratch-finetune", "dino-linear", "clinical"}
    assert set(metrics["fraction"]) == {0.5, 1.0}
    assert set(metrics["label"]) == {*labels, "macro", "weighted"}
    compared = read_table(results / "evaluate/comparison.csv", COMPARISON)
    groups = read_table(results / "evaluate/subgroups.csv", SUBGROUPS)
    assert {"all", "quality"} <= set(groups["subgroup"])
    assert set(compared["reference"]) <= {"scratch-finetune", "clinical"}


def test_every_folder_holds_what_the_design_promises(flow: Workflow) -> None:
    results = flow.folder / "results/phantom"
    run = results / "pretrain/dino/tiny/fold0-seed0"
    assert {path.name for path in run.iterdir()} >= {"backbone.safetensors", "backbone.json", "history.csv"}
    for fraction in ("f0.5", "f1"):
        card = results / f"classify/dino-linear/tiny/{fraction}/fold0-seed0/classifier.json"
        assert json.loads(card.read_text())["arm"] == "dino-linear"
        assert (results / "embed/dino/tiny/fold0-seed0/embeddings.h5").is_file()
        assert (results / f"classify/clinical/none/{fraction}/fold0-seed0/predictions.csv").is_file()
    model = json.loads((results / "model/model.json").read_text())
    assert model["arm"] in ("scratch-finetune", "dino-linear")
    assert model["provenance"]["fraction"] == 1
    scores = {(row["label"], row["metric"]): row["value"] for row in model["metrics"]}
    metrics = read_table(results / "evaluate/metrics.csv", METRICS)
    own = metrics[(metrics["arm"] == model["arm"]) & (metrics["fraction"] == 1)]
    assert scores == {(r.label, r.metric): None if pd.isna(r.value) else r.value for r in own.itertuples()}
    rules = {path.name.split(".")[0] for path in (results / "benchmarks").glob("*.tsv")}
    once = {"phantom", "cohort", "clinical", "evaluate", "audit", "report", "inference", "verdict"}
    assert rules == once | {"pretrain", "embed", "classify", "explain"}


def test_a_failed_job_says_why(flow: Workflow, tmp_path: Path) -> None:
    """A mistake that only the data can show: one line of the command, not a traceback, in the log that is shown."""
    broken = Workflow(tmp_path, stub=False)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_text("no image")
    broken.configure({**TINY, "cohort": {"name": "folder", "root": "scans"}})
    done = broken.run("--cores", "1")
    assert done.returncode == 1
    assert "octdino cohort: error: " in done.stderr
    assert "Traceback" not in done.stderr
