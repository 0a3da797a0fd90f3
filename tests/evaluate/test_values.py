"""Values in metrics.csv against scikit-learn, and the labels that they are over."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from octdino.config import EvaluateSettings
from octdino.data.csv_io import probability_column, read_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import COMPARISON, MANIFEST, METRICS
from octdino.errors import UserError
from octdino.evaluate import evaluate
from tests.evaluate.evaluated import FIGURES, SETTINGS, TABLES, metrics_of, one
from tests.results import LABELS, write_arm, write_cohort


def test_values_are_scikit_learns_on_test_scans(done: Path) -> None:
    folder = done / "classify" / "dino-linear" / "resnet18" / "f0.3" / "fold0-seed0"
    found = read_predictions(folder)
    table, metrics = found.table[found.table["split"] == "test"], metrics_of(done)
    macro: dict[str, list[float]] = {}
    for label in ("IRF", "DRT/ME", "FAVF"):
        rows = table[table[label].notna()]
        y, p = rows[label].astype(int), rows[probability_column(label)].astype(float)
        positive = p >= found.metadata.thresholds[label]
        expected = {
            "auroc": roc_auc_score(y, p), "average_precision": average_precision_score(y, p),
            "f1": f1_score(y, positive), "balanced_accuracy": balanced_accuracy_score(y, positive),
        }  # fmt: skip
        for metric, value in expected.items():
            row = one(metrics, arm="dino-linear", fraction=0.3, label=label, metric=metric)
            assert row["value"] == pytest.approx(value, abs=1e-9)
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n_scans"] == len(rows)
            assert row["n_patients"] == rows["patient"].nunique()
            assert row["n_positive"] == y.sum()
            assert row["n_positive_patients"] == rows.loc[y == 1, "patient"].nunique()
            assert row["n_resamples"] == 100
            macro.setdefault(metric, []).append(value)
    for metric, values in macro.items():
        row = one(metrics, arm="dino-linear", fraction=0.3, label="macro", metric=metric)
        assert row["value"] == pytest.approx(np.mean(values), abs=1e-9)


def test_every_interval_holds_its_value_and_means_lie_within(done: Path) -> None:
    metrics = metrics_of(done).dropna(subset=["value"])
    assert {"ece", "ece_calibrated", "calibration_slope", "patient_auroc"} <= set(metrics["metric"])
    outside = metrics[(metrics["value"] < metrics["low"] - 1e-12) | (metrics["value"] > metrics["high"] + 1e-12)]
    assert outside.empty, outside
    for (_, arm, fraction), part in metrics.groupby(["metric", "arm", "fraction"]):
        labels = part[~part["label"].isin(["macro", "weighted"])]["value"]
        means = part[part["label"].isin(["macro", "weighted"])]["value"]
        assert means.between(labels.min() - 1e-12, labels.max() + 1e-12).all(), (arm, fraction)


@pytest.mark.usefixtures("no_figures")
def test_bca_moves_intervals_and_no_value(done: Path, tmp_path: Path) -> None:
    folders = [path.parent for path in sorted(done.glob("classify/**/predictions.csv"))]
    settings = EvaluateSettings(resamples=100, interval="bca")
    evaluate(settings, done / "cohort" / "manifest.csv", folders, tmp_path)
    before, after = metrics_of(done), read_table(tmp_path / "metrics.csv", METRICS)
    pd.testing.assert_series_equal(before["value"], after["value"])
    both = before["low"].notna() & after["low"].notna()
    gap = (before["low"] - after["low"])[both].abs()
    assert 0 < gap[before["metric"] == "auroc"].mean() < 0.03


def test_rare_labels_are_not_evaluable_and_have_no_number(done: Path) -> None:
    metrics = metrics_of(done)
    rare = metrics[metrics["label"] == "VMT"]
    assert set(rare["tier"]) == {"not evaluable"}
    assert rare[["value", "low", "high"]].isna().all(axis=None)
    assert not (read_table(done / "evaluate" / "comparison.csv", COMPARISON)["label"] == "VMT").any()
    assert set(metrics.loc[metrics["label"] == "IRF", "tier"]) == {"primary"}


@pytest.mark.usefixtures("no_figures")
def test_some_labels_only(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folder = write_arm(tmp_path, tmp_path, "dino-linear")
    settings = EvaluateSettings(resamples=100, labels=["FAVF", "IRF"])
    evaluate(settings, tmp_path / "manifest.csv", [folder], tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    auroc = metrics[metrics["metric"] == "auroc"].set_index("label")["value"]
    assert auroc.index.tolist() == ["IRF", "FAVF", "macro", "weighted"]
    assert auroc["macro"] == pytest.approx((auroc["IRF"] + auroc["FAVF"]) / 2)
    with pytest.raises(UserError, match=r"evaluate.labels: Drusen is no label of .*manifest.csv; it has IRF, DRT/ME"):
        evaluate(EvaluateSettings(labels=["Drusen"]), tmp_path / "manifest.csv", [folder], tmp_path)


@pytest.mark.usefixtures("no_figures")
def test_a_label_without_a_threshold_is_in_no_arms_macro_f1(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folders = [write_arm(tmp_path, tmp_path, arm) for arm in ("scratch-finetune", "dino-linear")]
    metadata = json.loads((folders[1] / "classifier.json").read_text())
    metadata["thresholds"]["FAVF"] = None
    (folders[1] / "classifier.json").write_text(json.dumps(metadata))
    evaluate(SETTINGS, tmp_path / "manifest.csv", folders, tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    assert pd.isna(one(metrics, arm="dino-linear", label="FAVF", metric="f1")["value"])
    for arm in ("scratch-finetune", "dino-linear"):
        parts = [one(metrics, arm=arm, label=label, metric="f1")["value"] for label in ("IRF", "DRT/ME")]
        assert one(metrics, arm=arm, label="macro", metric="f1")["value"] == pytest.approx(np.mean(parts))


def test_one_arm_without_an_evaluable_label_gives_tables_without_values(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folder = write_arm(tmp_path, tmp_path, "scratch-finetune")
    settings = EvaluateSettings(resamples=100, min_positive_patients=1000)
    evaluate(settings, tmp_path / "manifest.csv", [folder / "predictions.csv"], tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    assert metrics["value"].isna().all()
    assert set(metrics["tier"]) == {"not evaluable"}
    assert read_table(tmp_path / "comparison.csv", COMPARISON).empty
    assert "no biomarker is evaluable" in (tmp_path / "roc.svg").read_text()


def test_labels_and_schema_of_the_fixture() -> None:
    assert not set(LABELS) & {column.name for column in MANIFEST}


def test_the_same_input_gives_the_same_bytes(done: Path, tmp_path: Path) -> None:
    folders = [path.parent for path in sorted(done.glob("classify/**/predictions.csv"), reverse=True)]
    evaluate(SETTINGS, done / "cohort" / "manifest.csv", folders, tmp_path)
    for name in [*TABLES, *FIGURES]:
        assert (tmp_path / name).read_bytes() == (done / "evaluate" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*TABLES, *FIGURES])
