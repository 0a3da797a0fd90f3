"""Cross-validation in the workflow: each fold's arms start from the pretraining that has not seen its test patients."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from octdino.config import load_config
from octdino.data.csv_io import labels_of, read_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import MANIFEST, METRICS, SPLITS
from octdino.errors import UserError
from tests.workflow.conftest import FEW, ROOT, Workflow
from tests.workflow.test_end_to_end import TINY


def test_arms_start_from_their_own_folds_pretraining(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    flow.configure({**FEW, "cohort": {"split": {"protocol": "crossval", "folds": 3}}})
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    calls = flow.calls()
    arms = [call for call in calls if call.startswith("classify dino-linear")]
    assert len(arms) == 3
    for call in arms:
        fold = re.search(r"--fold (\d)", call)
        assert fold
        assert f"embed/dino/resnet18/fold{fold[1]}-seed0/" in call[call.index("--embeddings") :]
    embedded = [call for call in calls if call.startswith("embed dino")]
    assert len(embedded) == 3
    for call in embedded:
        fold = re.search(r"--fold (\d)", call)
        assert fold
        assert f"pretrain/dino/resnet18/fold{fold[1]}-seed0 " in call[call.index("--pretrained") :]
    assert sum(call.startswith("clinical") for call in calls) == 3
    (evaluated,) = (call for call in calls if call.startswith("evaluate"))
    assert evaluated.count("predictions.csv") == 9
    assert flow.rules("--config", "pretrain={scope: all}")["pretrain"] == 1  # one that has seen all serves every fold


def test_the_review_preset_is_folds_times_seeds(tmp_path: Path) -> None:
    jobs = Workflow(tmp_path, stub=True).rules("--configfile", str(ROOT / "config/review.yaml"))
    assert (jobs["pretrain"], jobs["classify"], jobs["clinical"], jobs["evaluate"]) == (45, 150, 30, 1)


def test_protocols_that_cannot_be() -> None:
    with pytest.raises(UserError, match="published2 lists patients of olives, not of phantom"):
        load_config({"cohort": {"split": {"protocol": "published2"}}})
    with pytest.raises(UserError, match="file: holds one split"):
        load_config({"cohort": {"split": {"protocol": "crossval", "file": "splits.csv"}}})


@pytest.mark.slow
def test_a_cross_validation_runs_to_its_page(tmp_path: Path) -> None:
    """With the real commands: every labeled patient is tested, none by a model that has seen them."""
    flow = Workflow(tmp_path, stub=False)
    split = {"protocol": "crossval", "folds": 2, "repeats": 2, "val": 0.2}
    classify = {**TINY["classify"], "fractions": [1.0], "seeds": [0, 1]}
    flow.configure({**TINY, "cohort": {**TINY["cohort"], "split": split}, "classify": classify})
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "results/phantom"
    manifest = read_table(results / "cohort/manifest.csv", MANIFEST)
    labeled = manifest[manifest[labels_of(manifest)].notna().any(axis=1)]
    metrics = read_table(results / "evaluate/metrics.csv", METRICS)
    macro = metrics[metrics["label"] == "macro"]
    assert set(metrics["fold"]) == {"pooled"}
    assert set(macro["n_patients"]) == {labeled["patient"].nunique()}
    assert set(metrics["seed"].fillna(-1)) == {-1, 0, 1}
    splits = read_table(results / "cohort/splits.csv", SPLITS)
    for path in results.glob("classify/dino-linear/tiny/f1/*/classifier.json"):
        card = json.loads(path.read_text())
        weights = results / f"pretrain/dino/tiny/fold{card['fold']}-seed0/backbone.safetensors"
        assert card["pretrained"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert json.loads(weights.with_name("backbone.json").read_text())["fold"] == card["fold"]
        tested = read_predictions(path.parent).take("test").table["patient"]
        fold = splits[splits["fold"] == card["fold"]]
        assert set(tested) <= set(fold.loc[fold["split"] == "test", "patient"])
    page = (results / "report/report.html").read_text()
    assert "Scores of several folds are pooled" in page
    assert "of patients and of seeds, corrected for small samples" in page
