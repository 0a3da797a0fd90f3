"""The report's numbers beside ours, each read from its own results table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import JACCARD
from octdino.data.schemas.metadata import read_metadata
from octdino.errors import UserError
from octdino.report.results_reader import Results, read_results
from replication.__main__ import main
from replication.quoted_numbers import COLUMNS, ProtocolMetadata, markdown, quoted_table
from replication.settings import QuotedSettings, ReplicationSettings
from tests.results import write_arm, write_cohort, write_pretraining, write_tables


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("results") / "phantom"
    write_cohort(root / "cohort")
    arms = [write_arm(root / "classify", root / "cohort", arm) for arm in ("scratch-finetune", "dino-linear")]
    write_tables(root, arms)
    for seed, best in ((0, 0.75), (1, 0.77)):
        folder = root / "replication" / "dino-linear" / "resnet18" / "f0.2" / f"fold0-seed{seed}"
        folder.mkdir(parents=True)
        metadata = {"best": best, "last": best - 0.1, "epochs": 50, "n_test": 785}
        (folder / "protocol.json").write_text(json.dumps(metadata))
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


def corrected(results: Results, **wanted: object) -> tuple[float, str]:
    """Value and detail of one number of ours."""
    one = QuotedSettings.parse({"item": "x|y", "source": "Table 1", "value": 70.06, "corrected": wanted}, "test")
    table = quoted_table([one], results)
    assert table.columns.tolist() == list(COLUMNS)
    assert table["reported"].tolist() == [70.06]
    assert np.isnan(table["repeated"].iloc[0])
    assert "| x\\|y | Table 1 | 70.06 | \N{EN DASH} | " in markdown(table)
    return table["corrected"].iloc[0], table["corrected_detail"].iloc[0]


def test_each_number_is_read_from_its_table(results: Results) -> None:
    metrics = results.metrics
    macro = metrics[(metrics["arm"] == "dino-linear") & (metrics["label"] == "macro") & (metrics["metric"] == "auroc")]
    value, detail = corrected(results, name="dino-linear", backbone="resnet18", column="auroc")
    assert value == pytest.approx(100 * macro["value"].iloc[0])
    assert f"[{100 * macro['low'].iloc[0]:.1f}, " in detail
    assert "1 seed" in detail
    value, detail = corrected(results, table="protocol", name="dino-linear", backbone="resnet18", fraction=0.2)
    assert (round(value, 9), detail) == (76, "best of 50 epochs (last 66.0), 785 scans, 2 seeds")
    where = {"table": "history", "name": "dino", "backbone": "resnet18", "column": "knn5_accuracy"}
    assert corrected(results, **where, take="max") == (pytest.approx(70), "best of 20 epochs, 1 seed")
    assert corrected(results, **where)[0] == pytest.approx(60)
    where = {"table": "jaccard", "name": "imagenet", "backbone": "vit"}
    assert corrected(results, **where, column="paper") == (pytest.approx(45), "[43.0, 47.0], 1449 images, 1 seed")
    assert corrected(results, **where, column="largest_void", blobs="removed")[0] == pytest.approx(39)


@pytest.mark.parametrize("table", ["metrics", "protocol", "history", "jaccard"])
def test_what_was_not_run_has_no_number(results: Results, table: str) -> None:
    value, detail = corrected(results, table=table, name="byol-linear", backbone="resnet50")
    assert np.isnan(value)
    assert detail == ""


def test_the_command_writes_the_table_as_csv_and_markdown(results: Results, tmp_path: Path) -> None:
    numbers = [{"item": "a", "source": "b", "value": 42, "fault": "c", "corrected": {"name": "x", "backbone": "y"}}]
    argv = ["quoted", "--results", str(results.root), "--settings", json.dumps({"numbers": numbers})]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "replication.csv")
    assert table.columns.tolist() == list(COLUMNS)
    assert table["reported"].tolist() == [42]
    dash = "\N{EN DASH}"
    assert f"| a | b | 42 | {dash} | {dash} | c |" in (tmp_path / "out" / "replication.md").read_text()


@pytest.mark.parametrize("name", ["../../etc", "a/b", ""])
def test_a_number_is_not_read_outside_of_the_results(name: str) -> None:
    number = {"name": "dino-linear", "backbone": "resnet18", "table": "protocol"}
    for key in ("name", "backbone"):
        quoted = {"item": "a", "source": "b", "repeated": {**number, key: name}}
        with pytest.raises(UserError, match="cannot be a folder's name"):
            ReplicationSettings.parse({"numbers": [quoted]}, "replication")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"best": NaN}', "{}", '{"best": 2, "last": 0, "epochs": 1, "n_test": 1}']
)
def test_bad_protocol_metadata_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "protocol.json").write_text(text)
    with pytest.raises(UserError, match=r"protocol\.json"):
        read_metadata(tmp_path / "protocol.json", ProtocolMetadata, "protocol")
