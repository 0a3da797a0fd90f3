"""Labels that say nothing of the pictures: trained classifiers, in 20 draws of labels, differ as chance allows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from octdino.classify.train_arm import classify
from octdino.config import AugmentSettings, ClassifySettings, EvaluateSettings, ModelSettings
from octdino.data.csv_io import read_table, write_table
from octdino.data.schemas.csv_schemas import COMPARISON, MANIFEST, METRICS
from octdino.evaluate import evaluate
from tests.embedded import write_embedded
from tests.results import LABELS, write_cohort, write_store

SEEDS = 20
ARMS = ("scratch-linear", "scratch-knn", "scratch-mlp")  # on frozen random features; the first is the reference
SETTINGS = ClassifySettings(augment=AugmentSettings(global_size=48), epochs=10, min_steps=50, mlp_hidden=32)
MODEL = ModelSettings(timm="test_resnet")


def draw_labels(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Each label by a coin whose weight is the patient's own: scans of a patient are alike, pictures play no part."""
    rng = np.random.default_rng([7, seed])
    patient = pd.factorize(manifest["patient"])[0]
    weight = rng.beta(1, 1, (patient.max() + 1, len(LABELS)))[patient]
    drawn = (rng.random(weight.shape) < weight).astype(int)
    return manifest.assign(**{label: drawn[:, column] for column, label in enumerate(LABELS)})


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_random_labels_show_no_difference(tmp_path: Path) -> None:
    """22 test patients each. Of 20 seeds 1 may show a macro difference after Holm's correction; 4 are p = 0.016."""
    manifest = write_cohort(tmp_path / "cohort", patients=66)
    write_store(tmp_path / "cohort", manifest)
    rows, scores = [], []
    for seed in range(SEEDS):
        write_table(tmp_path / "cohort" / "manifest.csv", draw_labels(manifest, seed), MANIFEST)
        folders = [tmp_path / str(seed) / arm for arm in ARMS]
        run: dict[str, Any] = {"store": tmp_path / "cohort/scans.h5", "backbone": "tiny", "model": MODEL, "seed": seed}
        embeddings = write_embedded("scratch", SETTINGS.augment.global_size, out=tmp_path / str(seed) / "embed", **run)
        for arm, out in zip(ARMS, folders, strict=True):
            classify(arm, SETTINGS, embeddings=embeddings, pretrained=None, fraction=1.0, fold=0, out=out, **run)
        out = tmp_path / str(seed) / "evaluate"
        evaluate(EvaluateSettings(reference=ARMS[0]), tmp_path / "cohort" / "manifest.csv", folders, out)
        compared, metrics = read_table(out / "comparison.csv", COMPARISON), read_table(out / "metrics.csv", METRICS)
        rows.append(compared[(compared["label"] == "macro") & (compared["metric"] == "auroc")].assign(labels=seed))
        scores.append(metrics[(metrics["label"] == "macro") & (metrics["metric"] == "auroc")])
    table, auroc = pd.concat(rows), pd.concat(scores)
    print(table[["labels", "arm", "difference", "low", "high", "p", "p_adjusted"]].round(3).to_string(index=False))
    found = int((table.groupby("labels")["p_adjusted"].min() < 0.05).sum())
    held = float(((auroc["low"] <= 0.5) & (auroc["high"] >= 0.5)).mean())
    print(f"{found} of {SEEDS} seeds with a difference; {100 * held:.0f} % of {len(auroc)} intervals hold 0.5")
    print(auroc.groupby("arm")["value"].agg(["mean", "std"]).round(3))
    assert found <= 3
    assert held > 0.85
    assert abs(auroc["value"].mean() - 0.5) < 0.03
