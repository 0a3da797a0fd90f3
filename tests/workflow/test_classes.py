"""The verbs in a row on a table whose labels are classes: the clinical baseline runs too, and accuracy leads."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino import cli
from octdino.data.csv_io import leading_metric, read_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import METRICS

CLASSES = ["CNV", "DME", "NORMAL"]
MODEL = ["--backbone", "tiny", "--model", '{"timm": "test_resnet"}']


def write_scans(root: Path, patients: int = 30) -> None:
    """Three scans of each patient, brighter with each class, and a table with one 1 per row and retinal thickness."""
    rng = np.random.default_rng(0)
    rows = []
    root.mkdir()
    for number in range(3 * patients):
        kind = int(rng.integers(3))
        image = rng.integers(0, 60, (32, 32)) + 60 * kind
        Image.fromarray(image.astype(np.uint8)).save(root / f"{number}.png")
        row = {"path": f"{number}.png", "patient": f"p{number // 3}", "cst": 250 + 60 * kind + rng.normal(0, 40)}
        rows.append(row | {name: int(name == CLASSES[kind]) for name in CLASSES})
    pd.DataFrame(rows).to_csv(root / "scans.csv", index=False)


def verb(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the workflow would leave of two arms and the clinical baseline."""
    folder = tmp_path_factory.mktemp("classes")
    write_scans(folder / "scans")
    results = folder / "results" / "clinic"
    store = results / "cohort" / "scans.h5"
    verb("cohort", "folder", "--root", folder / "scans", "--title", "clinic", "--image.size", 32, 32, "--workers", 1,
         "--out", store.parent)  # fmt: skip
    runs = [
        results / "classify" / place / "f1/fold0-seed0"
        for place in ("scratch-linear/tiny", "scratch-knn/tiny", "clinical/none")
    ]
    embeddings = results / "embed/scratch/tiny/fold0-seed0"
    verb("embed", "scratch", "--store", store, *MODEL, "--size", 32, "--out", embeddings)
    for run in runs[:2]:
        verb("classify", run.parts[-4], "--store", store, *MODEL, "--embeddings", embeddings / "embeddings.h5",
             "--out", run)  # fmt: skip
    verb("clinical", "--store", store, "--out", runs[2])
    few = ["--reference", "scratch-linear", "--resamples", 100, "--min-positive-patients", 2]
    verb("evaluate", *runs, "--manifest", store.with_name("manifest.csv"), *few, "--out", results / "evaluate")
    verb("report", "--results", results, "--out", results / "report" / "report.html")
    return results


def test_every_arm_and_the_clinical_baseline_have_an_accuracy(results: Path) -> None:
    metrics = read_table(results / "evaluate/metrics.csv", METRICS)
    accuracy = metrics[metrics["metric"] == "accuracy"].set_index("arm")["value"]
    assert set(accuracy.index) == {"scratch-linear", "scratch-knn", "clinical"}
    found = read_predictions(results / "classify/clinical/none/f1/fold0-seed0")
    assert found.metadata.plain()["exclusive"] is True
    np.testing.assert_allclose(found.probabilities().sum(1), 1)
    test = found.take("test")
    assert accuracy["clinical"] == pytest.approx((test.probabilities().argmax(1) == test.truth().argmax(1)).mean())
    assert accuracy["clinical"] > 0.5  # thickness tells the class; chance is a third


def test_accuracy_leads_on_the_page_and_the_data_card_says_why(results: Path) -> None:
    metrics = read_table(results / "evaluate/metrics.csv", METRICS)
    assert leading_metric(metrics)[0] == "accuracy"
    page = (results / "report/report.html").read_text()
    assert "the share of scans whose class is predicted" in page
    card = (results / "report/data_card.md").read_text()
    assert "Labels exclude each other, as classes" in card
    assert "cohort.exclusive: false treats each label on its own" in card
    assert "Cohort clinic, of the kind folder." in card


def test_the_store_says_what_was_taken_and_why(results: Path) -> None:
    with h5py.File(results / "cohort/scans.h5") as file:
        assert (bool(file.attrs["exclusive"]), file.attrs["exclusive_from"]) == (True, "table")
    manifest = pd.read_csv(results / "cohort/manifest.csv")
    assert set(manifest["cohort"]) == {"clinic"}
