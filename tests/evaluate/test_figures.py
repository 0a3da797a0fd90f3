"""Figures of the evaluate stage."""

import logging
import re
import shutil
from pathlib import Path

import h5py
import pandas as pd
import pytest

from octdino.config import EvaluateSettings
from octdino.data.csv_io import read_table
from octdino.data.sampling_units import PATIENT
from octdino.data.schemas.csv_schemas import MANIFEST
from octdino.evaluate import evaluate
from octdino.evaluate.comparison_figures import apart, plot_forest
from octdino.plotting import arm_styles
from tests.evaluate.evaluated import FIGURES, SETTINGS
from tests.results import write_arm, write_cohort, write_store


def test_figures_have_no_background_and_follow_the_pages_ink(done: Path) -> None:
    for name in FIGURES:
        text = (done / "evaluate" / name).read_text()
        assert "currentColor" in text
        assert "<text" in text
        assert "#ffffff" not in text
        assert "<dc:date>" not in text
        assert 'role="img" aria-label="' in text


def test_legends_name_an_arm_that_only_one_backbone_has(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    write_cohort(cohort)
    chosen = [("scratch-finetune", "a"), ("scratch-finetune", "b"), ("dinov2-linear", "b")]
    folders = [write_arm(tmp_path / "classify", cohort, arm, backbone=backbone) for arm, backbone in chosen]
    evaluate(EvaluateSettings(resamples=100), cohort / "manifest.csv", folders, tmp_path / "evaluate")
    for name in ("label_efficiency", "roc", "pr"):
        assert "dinov2-linear" in (tmp_path / f"evaluate/{name}.svg").read_text()


def test_names_on_an_axis_keep_apart() -> None:
    assert apart([10, 100, 1000]) == [True, True, True]
    assert apart([50, 900, 1000]) == [True, False, True]
    assert apart([7]) == [True]


def words_of(folder: Path, *names: str) -> str:
    """The text of figures, and their text for screen readers."""
    files = [(folder / f"{name}.svg").read_text() for name in names]
    return " ".join(
        part for text in files for part in re.findall(r'>([^<>]+)<|aria-label="([^"]+)"', text) for part in part
    )


@pytest.mark.parametrize("state", ["known", "unknown"])
def test_figures_and_the_log_name_images_where_there_are_no_patients(
    done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    caplog.set_level(logging.INFO)
    shutil.copytree(done / "cohort", tmp_path / "cohort")
    manifest = read_table(done / "cohort" / "manifest.csv", MANIFEST)
    write_store(tmp_path / "cohort", manifest, size=16)
    with h5py.File(tmp_path / "cohort" / "scans.h5", "r+") as store:
        store.attrs["patients"] = state
    folders = [done / f"classify/{arm}/resnet18/f1/fold0-seed0" for arm in ("scratch-finetune", "dino-linear")]
    evaluate(SETTINGS, tmp_path / "cohort" / "manifest.csv", folders, tmp_path / "evaluate")
    unit, other = ("patients", "images") if state == "known" else ("images", "patients")
    text = words_of(tmp_path / "evaluate", "comparison", "difference", "label_efficiency", "labels", "calibration")
    text += words_of(tmp_path / "evaluate", "subgroups", "reliability")
    for words in ("95 % intervals over", "of labeled training", "labeled training", "fewer than 10"):
        assert f"{words} {unit}" in text, words
    assert f"temperature-scaled on validation {unit}" in text
    assert not re.search(rf"\b{other}\b", text)
    assert ("pat.," in text) == (state == "known")
    assert f"2 classifiers, 20 test {unit}, labels: " in caplog.text
    assert ("Patients are unknown." in caplog.text) == (state == "unknown")


def test_a_filled_point_of_a_difference_is_one_whose_adjusted_p_is_below_the_level() -> None:
    common = {"arm": "dino-linear", "backbone": "b", "fraction": 1.0, "difference": 0.1, "low": 0.01, "high": 0.2}
    filled = []
    for p, level in ((0.058, 0.05), (0.049, 0.05), (0.058, 0.1), (0.04, 0.01)):
        table = pd.DataFrame([{**common, "p_adjusted": p}])
        figure = plot_forest(table, "difference", "", arm_styles(["dino-linear"]), {}, PATIENT, level)
        (point,) = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
        filled.append(point.get_markerfacecolor() != "none")
    assert filled == [False, True, True, False]
