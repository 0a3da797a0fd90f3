"""What is written by an earlier run stays as it was where a later one interval_bounds with the user's mistake."""

from pathlib import Path

import h5py
import pytest

from octdino.config import EvaluateSettings
from octdino.errors import UserError
from octdino.evaluate import evaluate
from tests.results import write_arm, write_cohort, write_store


def test_a_damaged_store_leaves_the_earlier_tables_and_figures(tmp_path: Path) -> None:
    """The store is read last, for subgroups by image quality."""
    manifest = write_cohort(tmp_path / "cohort", patients=24)
    write_store(tmp_path / "cohort", manifest, size=16)
    arms = ("scratch-finetune", "dino-linear")
    folders = [write_arm(tmp_path / "classify", tmp_path / "cohort", arm) for arm in arms]
    where = (tmp_path / "cohort" / "manifest.csv", folders, tmp_path / "evaluate")
    evaluate(EvaluateSettings(resamples=100), *where)
    before = {path.name: path.read_bytes() for path in (tmp_path / "evaluate").iterdir()}
    with h5py.File(tmp_path / "cohort" / "scans.h5", "r+") as file:
        del file["images"]
    with pytest.raises(UserError, match=r"scans\.h5: no dataset images"):
        evaluate(EvaluateSettings(resamples=120), *where)
    assert {path.name: path.read_bytes() for path in (tmp_path / "evaluate").iterdir()} == before
