"""The first report's numbers stand beside ours, each from its own table, with what it is a number of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from octdino.config import EvaluateSettings
from octdino.config.report import QuotedSettings
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import JACCARD
from octdino.evaluate import evaluate
from octdino.report.conclusions import NOTHING
from octdino.report.quoted import HEADS, quoted_rows
from octdino.report.results_reader import Results, read_results
from tests.results import write_arm, write_cohort, write_pretraining


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("results") / "phantom"
    write_cohort(root / "cohort")
    arms = [write_arm(root / "classify", root / "cohort", arm) for arm in ("scratch-finetune", "dino-linear")]
    evaluate(EvaluateSettings(resamples=100), root / "cohort" / "manifest.csv", arms, root / "evaluate")
    for seed, best in ((0, 0.75), (1, 0.77)):
        folder = root / "classify" / "dino-linear" / "resnet18" / "f0.2" / f"reported-fold0-seed{seed}"
        folder.mkdir(parents=True)
        card = {"best": best, "last": best - 0.1, "epochs": 50, "n_test": 785}
        (folder / "reported.json").write_text(json.dumps(card))
    history = write_pretraining(root / "pretrain", "dino") / "history.csv"
    table = pd.read_csv(history)
    table["knn5_accuracy"] = [np.nan, *np.linspace(0.3, 0.7, 18), 0.6]
    table.to_csv(history, index=False)
    numbers = [("paper", "kept", 0.45), ("largest_void", "kept", 0.368), ("largest_void", "removed", 0.39)]
    rows = [
        {"init": "imagenet", "backbone": "vit", "map": "attention", "protocol": protocol, "blobs": blobs,
         "value": value, "low": value - 0.02, "high": value + 0.02, "n_images": 1449, "n_patients": 1449,
         "n_objects": 3427}
        for protocol, blobs, value in numbers
    ]  # fmt: skip
    write_table(root / "explain" / "imagenet" / "vit" / "fold0-seed0" / "jaccard.csv", pd.DataFrame(rows), JACCARD)
    return read_results(root)


def cell(results: Results, **wanted: object) -> tuple[str, str]:
    one = QuotedSettings.parse({"item": "x", "source": "Table 1", "value": 70.06, "corrected": wanted}, "test")
    (row,) = quoted_rows([one], results)
    assert len(row) == len(HEADS)
    assert row[2].text == "70.06 %"
    return row[4].text, row[4].small


def test_each_number_is_read_from_its_table(results: Results) -> None:
    metrics = results.metrics
    macro = metrics[(metrics["arm"] == "dino-linear") & (metrics["label"] == "macro") & (metrics["metric"] == "auroc")]
    text, small = cell(results, name="dino-linear", backbone="resnet18", column="auroc")
    assert text == f"{100 * macro['value'].iloc[0]:.1f} %"
    assert f"[{100 * macro['low'].iloc[0]:.1f}, " in small
    assert "1 seed" in small
    text, small = cell(results, table="reported", name="dino-linear", backbone="resnet18", fraction=0.2)
    assert (text, small) == ("76.0 %", "best of 50 epochs (last 66.0), 785 scans, 2 seeds")
    where = {"table": "history", "name": "dino", "backbone": "resnet18", "column": "knn5_accuracy"}
    assert cell(results, **where, take="max") == ("70.0 %", "best of 20 epochs, 1 seed")
    assert cell(results, **where)[0] == "60.0 %"
    where = {"table": "jaccard", "name": "imagenet", "backbone": "vit"}
    assert cell(results, **where, column="paper") == ("45.0 %", "[43.0, 47.0], 1449 images, 1 seed")
    assert cell(results, **where, column="largest_void", blobs="removed")[0] == "39.0 %"


@pytest.mark.parametrize("table", ["metrics", "reported", "history", "jaccard"])
def test_what_was_not_run_has_no_number(results: Results, table: str) -> None:
    assert cell(results, table=table, name="byol-linear", backbone="resnet50") == (NOTHING, "")


def test_every_quoted_number_of_the_presets_has_a_place(results: Results) -> None:
    presets = Path(__file__).parents[2] / "config"
    for path in sorted(presets.glob("*.yaml")):
        for one in (yaml.safe_load(path.read_text()).get("report") or {}).get("quoted", []):
            QuotedSettings.parse(one, path.name)
