"""The files that the classify and the evaluate stage share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from octdino.data.predictions import read_predictions, write_predictions
from octdino.errors import UserError

METADATA: dict[str, Any] = {
    "arm": "dino-linear", "backbone": "resnet18", "fraction": 0.1, "fold": 0, "seed": 0,
    "exclusive": False, "thresholds": {"IRF": 0.25, "DRT/ME": None}, "thresholds_from": "val",
}  # fmt: skip
LABELS = ["IRF", "DRT/ME"]


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "scan_id": ["a", "b", "NA"],
            "patient": ["01", "1", "null"],
            "eye": ["x", "y", "z"],
            "split": ["val", "test", "test"],
            "IRF": pd.array([1, 0, None], "Float64"),
            "DRT/ME": pd.array([0, None, 1], "Float64"),
        }
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    p = np.array([[1 / 3, 0.1], [0.0, 1.0], [1e-9, 0.7]])
    write_predictions(tmp_path / "new", rows(), LABELS, p, METADATA)
    found = read_predictions(tmp_path / "new")
    assert found.labels == LABELS
    assert found.metadata.plain() == {**METADATA, "labels": LABELS}
    assert found.table["scan_id"].tolist() == ["a", "b", "NA"]
    assert found.table["patient"].tolist() == ["01", "1", "null"]
    np.testing.assert_allclose(found.probabilities(), p, rtol=1e-15)
    np.testing.assert_array_equal(found.truth(), [[1, 0], [0, np.nan], [np.nan, 1]])
    assert found.take("test").table["scan_id"].tolist() == ["b", "NA"]
    assert found.thresholds() == [0.25, None]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["classifier.json", "predictions.csv"]


def test_diverged_training_writes_nothing(tmp_path: Path) -> None:
    p = np.array([[0.5, 0.1], [np.nan, 1.0], [0.5, 0.7]])
    with pytest.raises(UserError, match="IRF are not numbers"):
        write_predictions(tmp_path / "new", rows(), LABELS, p, METADATA)
    assert not (tmp_path / "new").exists()


def change(folder: Path, column: str, value: object) -> None:
    table = pd.read_csv(folder / "predictions.csv", dtype=object, keep_default_na=False)
    table.loc[1, column] = value
    table.to_csv(folder / "predictions.csv", index=False)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("IRF", 2, "row 3: IRF is 2; expected 0, 1 or empty"),
        ("prob:IRF", 1.5, "row 3: prob:IRF is 1.5; expected a number from 0 to 1"),
        ("prob:IRF", "", "prob:IRF is empty; expected a number from 0 to 1"),
        ("prob:IRF", "high", "prob:IRF is 'high'; expected a number from 0 to 1"),
        ("split", "train", "split is 'train'; expected val or test"),
        ("scan_id", "a", "row 3: scan_id a occurs in two rows"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, column: str, value: object, message: str) -> None:
    write_predictions(tmp_path, rows(), LABELS, np.full((3, 2), 0.5), METADATA)
    change(tmp_path, column, value)
    with pytest.raises(UserError, match=message):
        read_predictions(tmp_path)


def test_missing_files_keys_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"classifier.json: no such file"):
        read_predictions(tmp_path)
    (tmp_path / "classifier.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_predictions(tmp_path)
    write_predictions(tmp_path, rows(), LABELS, np.full((3, 2), 0.5), METADATA)
    pd.read_csv(tmp_path / "predictions.csv").drop(columns="prob:IRF").to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(UserError, match="no column prob:IRF"):
        read_predictions(tmp_path)
    card = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps({k: v for k, v in card.items() if k != "fold"}))
    with pytest.raises(UserError, match="fold: missing"):
        read_predictions(tmp_path)
