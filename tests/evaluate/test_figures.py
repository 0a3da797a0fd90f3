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
from octdino.data.schemas.csv_schemas import MANIFEST
from octdino.evaluate import evaluate
from octdino.evaluate.comparison_figures import apart
from octdino.evaluate.forest_figures import plot_differences
from octdino.plotting import arm_styles, is_wide, notice_of
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


def test_keys_name_an_arm_that_only_one_backbone_has(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    write_cohort(cohort)
    chosen = [("scratch-finetune", "a"), ("scratch-finetune", "b"), ("dinov2-linear", "b")]
    folders = [write_arm(tmp_path / "classify", cohort, arm, backbone=backbone) for arm, backbone in chosen]
    evaluate(EvaluateSettings(resamples=100), cohort / "manifest.csv", folders, tmp_path / "evaluate")
    for name in ("comparison", "labels", "roc", "pr"):
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
        rows = [("dino-linear", "b")]
        figure = plot_differences([("", table)], rows, arm_styles(["dino-linear"]), "", {}, level)
        (point,) = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
        filled.append(point.get_markerfacecolor() != "none")
    assert filled == [False, True, True, False]


def evaluated(root: Path, arms: tuple[str, ...], fractions: tuple[float, ...], **settings: object) -> Path:
    write_cohort(root / "cohort")
    folders = [write_arm(root / "classify", root / "cohort", arm, fraction) for arm in arms for fraction in fractions]
    chosen = EvaluateSettings(resamples=100, **settings)
    evaluate(chosen, root / "cohort" / "manifest.csv", folders, root / "evaluate")
    return root / "evaluate"


def test_one_fraction_and_one_label_are_a_sentence_and_no_plot(tmp_path: Path) -> None:
    out = evaluated(tmp_path, ("scratch-finetune", "dino-linear"), (1.0,), labels=["IRF"])
    notices = {path.stem: notice_of(path.read_text()) for path in out.glob("*.svg")}
    without = {"label_efficiency", "patients_needed", "labels", "label_difference"}
    assert {name for name, words in notices.items() if words} == without
    assert notices["label_efficiency"].startswith("All arms were trained on 100 % of labeled training patients (")
    assert notices["labels"] == "The only evaluable biomarker, IRF, is in the comparison above."
    assert not is_wide((out / "comparison.svg").read_text())


def test_one_arm_has_no_differences(tmp_path: Path) -> None:
    out = evaluated(tmp_path, ("scratch-finetune",), (0.3, 1.0))
    words = notice_of((out / "difference.svg").read_text())
    assert words == "No other arm was run with scratch-finetune, so there are no paired differences."
    assert is_wide((out / "comparison.svg").read_text())


def test_scores_and_differences_have_the_same_rows(done: Path) -> None:
    rows = []
    for name in ("comparison", "difference"):
        text = (done / "evaluate" / f"{name}.svg").read_text()
        rows.append([arm for arm in re.findall(r">([^<>]+)</text>", text) if arm.split("-")[0] in NAMES])
    assert rows[0] == rows[1]
    assert set(rows[0]) == {"scratch-finetune", "dino-linear", "simclr-linear", "clinical"}


NAMES = ("scratch", "dino", "simclr", "clinical")
