"""Runs that cannot be compared are refused with one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import SPLITS
from octdino.errors import UserError
from octdino.evaluate import evaluate
from tests.evaluate.evaluated import SETTINGS, edit
from tests.results import write_arm, write_cohort


def test_what_may_not_be_compared_is_refused(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    manifest_file = cohort / "manifest.csv"
    manifest = write_cohort(cohort)
    folders = [write_arm(tmp_path, cohort, arm) for arm in ("scratch-finetune", "dino-linear")]
    predictions, splits_file = folders[1] / "predictions.csv", cohort / "splits.csv"
    kept = {path: path.read_text() for path in (manifest_file, predictions, splits_file)}

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            evaluate(SETTINGS, manifest_file, folders, tmp_path / "out")
        for path, text in kept.items():
            path.write_text(text)
        assert not (tmp_path / "out").exists()

    table = pd.read_csv(predictions, dtype=object)
    tested = int(np.flatnonzero(table["split"] == "test")[0])
    scan = table["scan_id"][tested]
    table.drop(index=tested).to_csv(predictions, index=False)
    refused(f"different scans, 1 of them, such as {scan}")

    where = int(np.flatnonzero(manifest["scan_id"] == scan)[0])
    patient = manifest["patient"][where]
    for row in np.flatnonzero(manifest["patient"] == patient):
        edit(manifest_file, int(row), "split", "train")
    patients = read_table(splits_file, SPLITS)["patient"].tolist()
    edit(splits_file, patients.index(patient), "split", "train")
    refused(f"test scan {scan} is of patient {patient}, a train patient of fold 0")

    edit(manifest_file, where, "scan_id", "other")
    refused(f"test scan {scan} is not in")

    edit(manifest_file, where, "IRF", 1 - int(manifest["IRF"][where]))
    refused(f"scan {scan} has another IRF than in the manifest")

    wide = pd.read_csv(manifest_file, dtype=object).assign(Drusen=1)
    wide.to_csv(manifest_file, index=False)
    refused("no predictions of Drusen")

    wide.rename(columns={"Drusen": "macro"}).to_csv(manifest_file, index=False)
    refused("'macro', means the mean over labels")

    folders.append(folders[0])
    refused("the same run")
    folders[:] = [folders[0], write_arm(tmp_path, cohort, "dino-linear", seed=1)]
    metadata = json.loads((folders[1] / "classifier.json").read_text())
    (folders[1] / "classifier.json").write_text(json.dumps({**metadata, "fold": 1}))
    refused("tested in folds")
    folders.clear()
    refused("nothing to evaluate")


def test_a_missing_labeled_test_scan_is_named(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folder = write_arm(tmp_path, tmp_path, "dino-linear")
    table = pd.read_csv(folder / "predictions.csv", dtype=object)
    table[table["split"] == "val"].to_csv(folder / "predictions.csv", index=False)
    with pytest.raises(UserError, match="120 labeled test scans are missing"):
        evaluate(SETTINGS, tmp_path / "manifest.csv", [folder], tmp_path / "out")
