"""Folds are pooled, seeds and repeats are averaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from octdino.data.csv_io import read_table, write_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import COMPARISON, METRICS, SPLITS, SUBGROUPS
from octdino.errors import UserError
from octdino.evaluate import evaluate
from tests.evaluate.evaluated import SETTINGS, one
from tests.results import write_arm, write_cohort


@pytest.mark.usefixtures("no_figures")
def test_folds_are_pooled_and_seeds_are_averaged(tmp_path: Path) -> None:
    write_cohort(tmp_path, folds=3)
    folders = [
        write_arm(tmp_path, tmp_path, arm, fold=fold, seed=seed)
        for arm in ("scratch-finetune", "dino-linear")
        for fold in range(3)
        for seed in (0, 1)
    ]
    evaluate(SETTINGS, tmp_path / "manifest.csv", folders, tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    assert set(metrics["fold"]) == {"pooled"}
    macro = metrics[(metrics["arm"] == "dino-linear") & (metrics["label"] == "macro") & (metrics["metric"] == "auroc")]
    mean = macro[macro["seed"].isna()].iloc[0]
    assert mean["n_patients"] == 60
    assert mean["value"] == pytest.approx(macro[macro["seed"].notna()]["value"].mean())
    comparison = read_table(tmp_path / "comparison.csv", COMPARISON)
    assert set(comparison["seed"].fillna(-1)) == {-1, 0, 1}
    parts = [read_predictions(f).take("test").table for f in folders if "dino" in str(f) and f.name.endswith("seed1")]
    pooled = pd.concat(parts)
    assert one(metrics[metrics["seed"] == 1], arm="dino-linear", label="IRF", metric="auroc")["value"] == pytest.approx(
        roc_auc_score(pooled["IRF"], pooled["prob:IRF"])
    )


@pytest.mark.usefixtures("no_figures")
def test_repeats_of_a_cross_validation_are_averaged(tmp_path: Path) -> None:
    """Folds 3 to 5 divide the patients once more (here alike, in another order); each repeat is pooled by itself."""
    write_cohort(tmp_path, folds=3)
    splits = pd.read_csv(tmp_path / "splits.csv", dtype={"patient": str, "group": str})
    again = splits.assign(fold=3 + (splits["fold"] + 1) % 3)
    write_table(tmp_path / "splits.csv", pd.concat([splits, again]), SPLITS)
    arms = ("scratch-finetune", "dino-linear")
    folders = [write_arm(tmp_path, tmp_path, arm, fold=fold) for arm in arms for fold in range(6)]
    evaluate(SETTINGS, tmp_path / "manifest.csv", folders, tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    row = one(metrics, arm="dino-linear", label="IRF", metric="auroc")
    assert (row["fold"], row["n_patients"], row["n_scans"]) == ("pooled", 60, 360)
    tables = [read_predictions(folder).take("test").table for folder in folders[6:]]
    pooled = [pd.concat(tables[:3]), pd.concat(tables[3:])]
    expected = [roc_auc_score(part["IRF"], part["prob:IRF"]) for part in pooled]
    assert expected[0] != expected[1]
    assert row["value"] == pytest.approx(np.mean(expected), abs=1e-12)
    groups = read_table(tmp_path / "subgroups.csv", SUBGROUPS)
    assert one(groups, arm="dino-linear", label="IRF", group="all")["value"] == pytest.approx(np.mean(expected))
    with pytest.raises(UserError, match="is tested in one of repeats 0 and 1 only"):
        evaluate(SETTINGS, tmp_path / "manifest.csv", [f for f in folders if not f.name.startswith("fold5")], tmp_path)
