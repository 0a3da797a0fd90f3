"""An external cohort is read without a split: all patients are test, two of them suffice, a split column is ignored."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino.cli import main
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import SPLITS


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for patient, split in (("a", "train"), ("b", "test")):
        for number in range(2):
            path = tmp_path / f"{patient}{number}.png"
            Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8)).save(path)
            rows.append({"path": path.name, "patient": patient, "split": split, "DME": int(patient == "a")})
    pd.DataFrame(rows).to_csv(tmp_path / "scans.csv", index=False)
    return tmp_path / "scans.csv"


def test_two_patients_are_both_test(table: Path, tmp_path: Path) -> None:
    words = ["cohort", "folder", "--root", str(tmp_path), "--table", str(table), "--image.size", "32", "32"]
    words += ["--workers", "1", "--out", str(tmp_path / "out")]
    assert main([*words, "--test-only"]) == 0
    cohort = read_cohort(tmp_path / "out" / "scans.h5")
    assert set(cohort.manifest["split"]) == {"test"}
    splits = read_table(tmp_path / "out" / "splits.csv", SPLITS)
    assert splits[["fold", "patient", "split"]].to_numpy().tolist() == [[0, "a", "test"], [0, "b", "test"]]
    assert splits["rank"].isna().all()
    assert main(words) == 2  # two patients cannot be trained on, validated and tested
