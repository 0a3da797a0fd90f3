"""Labels that exclude each other: one answer a scan, one softmax, one temperature."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from octdino.config import EvaluateSettings
from octdino.data.csv_io import read_table, write_table
from octdino.data.predictions import write_predictions
from octdino.data.schemas.csv_schemas import MANIFEST, METRICS, SUBGROUPS
from octdino.errors import UserError
from octdino.evaluate import evaluate
from octdino.stats.calibration import calibration_of
from tests.results import write_cohort

CLASSES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes over the fixture's patients; the second arm is right more often, both are too sure."""
    root = tmp_path_factory.mktemp("exclusive")
    rng = np.random.default_rng(0)
    manifest = write_cohort(root).drop(columns=["IRF", "DRT/ME", "FAVF", "VMT"])
    classes = rng.integers(0, 3, len(manifest))
    manifest[CLASSES] = np.eye(3, dtype=int)[classes]
    write_table(root / "manifest.csv", manifest, MANIFEST)
    rows = np.flatnonzero(manifest["split"] != "train")
    table, truth = manifest.iloc[rows], np.eye(3)[classes[rows]]
    folders = []
    for arm, skill in (("scratch-finetune", 0.7), ("dino-linear", 1.5)):
        p = softmax(3 * (skill * truth + rng.normal(0, 0.7, truth.shape)), axis=1)
        val = (table["split"] == "val").to_numpy()
        card = {
            "arm": arm, "backbone": "b", "fraction": 1.0, "fold": 0, "seed": 0, "exclusive": True,
            "thresholds": dict.fromkeys(CLASSES, 0.5),
            "calibration": calibration_of(truth[val], p[val], True, table["patient"][val].nunique()),
        }  # fmt: skip
        folders.append(root / "classify" / arm / "b" / "f1" / "fold0-seed0")
        write_predictions(folders[-1], table, CLASSES, p, card)
    evaluate(EvaluateSettings(resamples=100), root / "manifest.csv", folders, root)
    return root


def test_accuracy_stands_at_macro_and_is_scikit_learns(done: Path) -> None:
    metrics = read_table(done / "metrics.csv", METRICS)
    accuracy = metrics[metrics["metric"] == "accuracy"].set_index("arm")
    assert set(accuracy["label"]) == {"macro"}
    table = pd.read_csv(done / "classify/dino-linear/b/f1/fold0-seed0/predictions.csv")
    test = table[table["split"] == "test"]
    p = test[[f"prob:{name}" for name in CLASSES]].to_numpy()
    assert accuracy.loc["dino-linear", "value"] == pytest.approx(
        accuracy_score(test[CLASSES].to_numpy().argmax(1), p.argmax(1))
    )
    groups = read_table(done / "subgroups.csv", SUBGROUPS)
    groups = groups[(groups["metric"] == "accuracy") & (groups["arm"] == "dino-linear")]
    trial = groups[groups["subgroup"] == "trial"]
    assert np.average(trial["value"], weights=trial["n_scans"]) == pytest.approx(accuracy.loc["dino-linear", "value"])
    assert "accuracy" in (done / "subgroups.svg").read_text()


def test_the_temperature_is_that_of_the_softmax(done: Path) -> None:
    folder = done / "classify/dino-linear/b/f1/fold0-seed0"
    temperature = json.loads((folder / "classifier.json").read_text())["calibration"]["temperature"]
    table = pd.read_csv(folder / "predictions.csv")
    columns = [f"prob:{name}" for name in CLASSES]
    val, test = (table[table["split"] == split] for split in ("val", "test"))
    losses = [
        log_loss(val[CLASSES].to_numpy().argmax(1), softmax(np.log(val[columns].to_numpy()) / t, axis=1))
        for t in (temperature * 0.99, temperature, temperature * 1.01)
    ]
    assert losses[1] == min(losses)
    cooled = softmax(np.log(test[columns].to_numpy()) / temperature, axis=1)
    metrics = read_table(done / "metrics.csv", METRICS)
    found = metrics[(metrics["arm"] == "dino-linear") & (metrics["label"] == "owl")].set_index("metric")["value"]
    assert found["brier_calibrated"] == pytest.approx(brier_score_loss(test["owl"], cooled[:, 2]), abs=1e-9)
    assert found["brier_calibrated"] < found["brier"]


def with_card(done: Path, arm: str, root: Path, **changes: object) -> list[Path]:
    """Both arms' folders in a copy below `root`; the card of `arm` is changed."""
    shutil.copytree(done, root, dirs_exist_ok=True)
    path = root / "classify" / arm / "b/f1/fold0-seed0/classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return sorted(root.glob("classify/*/*/*/*"))


@pytest.mark.parametrize(
    ("said", "message"),
    [(False, "exclusive is true, and false in .*dino-linear"), (None, "exclusive: None is not allowed")],
)
def test_a_run_that_disagrees_is_an_error(done: Path, tmp_path: Path, said: object, message: str) -> None:
    folders = with_card(done, "dino-linear", tmp_path, exclusive=said)
    with pytest.raises(UserError, match=message):
        evaluate(EvaluateSettings(resamples=100), tmp_path / "manifest.csv", folders, tmp_path / "out")


def test_without_all_classes_there_is_no_accuracy_and_calibration_stays_that_of_all(done: Path, tmp_path: Path) -> None:
    folders = sorted(done.glob("classify/*/*/*/*"))
    settings = EvaluateSettings(resamples=100, labels=["cat", "owl"])
    evaluate(settings, done / "manifest.csv", folders, tmp_path)
    metrics, whole = (read_table(folder / "metrics.csv", METRICS) for folder in (tmp_path, done))
    assert not (metrics["metric"] == "accuracy").any()

    def brier(table: pd.DataFrame) -> float:
        row = (table["arm"] == "dino-linear") & (table["label"] == "owl") & (table["metric"] == "brier_calibrated")
        return float(table.loc[row, "value"].iloc[0])

    assert brier(metrics) == pytest.approx(brier(whole), abs=1e-12)
