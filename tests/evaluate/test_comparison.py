"""Paired differences in comparison.csv."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.config import EvaluateSettings
from octdino.data.csv_io import read_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import COMPARISON
from octdino.evaluate import evaluate
from octdino.stats.bootstrap import resample_patients
from tests.evaluate.evaluated import auroc, metrics_of, one
from tests.results import write_arm, write_cohort


def test_differences_are_paired_and_adjusted(done: Path) -> None:
    metrics, comparison = metrics_of(done), read_table(done / "evaluate" / "comparison.csv", COMPARISON)
    for label in ("macro", "IRF"):
        pair = [
            one(metrics, arm=arm, fraction=1.0, label=label, metric="auroc")
            for arm in ("dino-linear", "scratch-finetune")
        ]
        row = one(
            comparison, arm="dino-linear", reference="scratch-finetune", fraction=1.0, label=label, metric="auroc"
        )
        assert row["difference"] == pytest.approx(pair[0]["value"] - pair[1]["value"], abs=1e-12)
        assert row["low"] < row["difference"] < row["high"]
        assert row["p_adjusted"] >= row["p"]
    against = comparison[comparison["reference"] == "clinical"]
    assert set(against["arm"]) == {"scratch-finetune", "dino-linear", "simclr-linear"}
    assert set(comparison["arm"]) == set(against["arm"])


@pytest.mark.usefixtures("no_figures")
def test_the_paired_interval_equals_that_of_a_naive_loop(tmp_path: Path) -> None:
    """Same resamples, scikit-learn in a plain loop over resamples and labels."""
    write_cohort(tmp_path)
    folders = [write_arm(tmp_path, tmp_path, arm) for arm in ("scratch-finetune", "dino-linear")]
    settings = EvaluateSettings(resamples=100, small_sample_correction=False)
    evaluate(settings, tmp_path / "manifest.csv", folders, tmp_path)
    tables = [read_predictions(folder).take("test").table for folder in folders]
    patient, names = pd.factorize(tables[0]["patient"])
    differences = []
    for column in resample_patients(len(names), 100, seed=0)[:, 1:].T:
        rows = np.repeat(np.arange(len(patient)), column[patient].astype(int))
        drawn = [table.iloc[rows] for table in tables]
        scores = [[auroc(table, label) for label in ("IRF", "DRT/ME", "FAVF")] for table in drawn]
        differences.append(np.mean(scores[1]) - np.mean(scores[0]))
    row = one(read_table(tmp_path / "comparison.csv", COMPARISON), label="macro", metric="auroc")
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-9)
