"""The control without a picture."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from octdino.classify.clinical import clinical_baseline, clinical_features, visit_order
from octdino.data.csv_io import fraction_patients, read_table, write_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import MANIFEST, SPLITS
from octdino.errors import UserError
from octdino.stats.calibration import fit_temperature
from octdino.stats.thresholds import choose_threshold
from tests.results import write_cohort, write_store


def control(cohort: Path, out: Path, fraction: float = 1.0, fold: int = 0) -> None:
    if not (cohort / "scans.h5").exists():
        write_store(cohort, read_table(cohort / "manifest.csv", MANIFEST))
    clinical_baseline(cohort / "scans.h5", fraction, fold, 0, out)


def test_it_finds_what_thickness_tells_and_nothing_else(tmp_path: Path) -> None:
    write_cohort(tmp_path, patients=120)
    control(tmp_path, tmp_path / "out")
    test = read_predictions(tmp_path / "out").take("test").table
    assert roc_auc_score(test["DRT/ME"].astype(int), test["prob:DRT/ME"]) > 0.9
    known = test[test["FAVF"].notna()]
    assert 0.35 < roc_auc_score(known["FAVF"].astype(int), known["prob:FAVF"]) < 0.65


def test_it_predicts_every_labeled_val_and_test_scan_and_says_how(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path, folds=3)
    control(tmp_path, tmp_path / "out", fraction=0.3, fold=2)
    found = read_predictions(tmp_path / "out")
    splits = read_table(tmp_path / "splits.csv", SPLITS)
    side = splits[splits["fold"] == 2].set_index("patient")["split"]
    expected = manifest[manifest["patient"].map(side) != "train"]
    assert found.table["scan_id"].tolist() == expected["scan_id"].tolist()
    assert found.table["split"].tolist() == expected["patient"].map(side).tolist()
    card = found.metadata.plain()
    assert (card["arm"], card["backbone"], card["fold"], card["thresholds_from"]) == ("clinical", "none", 2, "val")
    assert card["n_train_patients"] == len(fraction_patients(splits, 2, 0.3))
    val = found.take("val")
    assert card["thresholds"]["IRF"] == choose_threshold(val.truth()[:, 0], val.probabilities()[:, 0], "youden")
    assert found.temperature() == pytest.approx(fit_temperature(val.truth(), val.probabilities(), False), rel=1e-9)


def test_test_labels_and_other_patients_change_nothing(tmp_path: Path) -> None:
    """Neither the labels of test patients nor those of training patients outside the fraction are seen."""
    manifest = write_cohort(tmp_path)
    control(tmp_path, tmp_path / "before", fraction=0.3)
    seen = fraction_patients(read_table(tmp_path / "splits.csv", SPLITS), 0, 0.3)
    unseen = (manifest["split"] != "val") & ~manifest["patient"].isin(seen)
    manifest.loc[unseen, ["IRF", "DRT/ME"]] = 1 - manifest.loc[unseen, ["IRF", "DRT/ME"]]
    write_table(tmp_path / "manifest.csv", manifest, MANIFEST)
    control(tmp_path, tmp_path / "after", fraction=0.3)
    before, after = read_predictions(tmp_path / "before"), read_predictions(tmp_path / "after")
    np.testing.assert_array_equal(before.probabilities(), after.probabilities())
    assert before.metadata.plain()["thresholds"] == after.metadata.plain()["thresholds"]


def test_without_clinical_values_it_predicts_the_prevalence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = write_cohort(tmp_path)
    manifest[["cst", "bcva", "slice", "visit", "trial"]] = None
    write_table(tmp_path / "manifest.csv", manifest, MANIFEST)
    control(tmp_path, tmp_path / "out")
    found = read_predictions(tmp_path / "out")
    train = manifest[manifest["split"] == "train"]
    np.testing.assert_allclose(found.probabilities()[:, 0], train["IRF"].mean())
    assert found.metadata.plain()["features"] == []
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == (
        f"{tmp_path}/manifest.csv: no training scan has a value of cst, bcva, slice, visit, trial: the clinical "
        "baseline predicts the share of each label"
    )


@pytest.mark.parametrize("columns", [["cst"], ["cst", "bcva", "slice", "visit", "trial"]])
def test_values_that_no_training_scan_has_are_no_feature(tmp_path: Path, columns: list[str]) -> None:
    manifest = write_cohort(tmp_path)
    train = manifest["split"] == "train"
    manifest.loc[train, columns] = None
    write_table(tmp_path / "manifest.csv", manifest, MANIFEST)
    control(tmp_path, tmp_path / "out")
    found = read_predictions(tmp_path / "out")
    assert found.metadata.plain()["features"] == ["bcva", "slice", "visit_order", "trial"] * (columns == ["cst"])
    if len(columns) > 1:
        np.testing.assert_allclose(found.probabilities()[:, 0], manifest["IRF"][train].mean())


def test_values_that_no_scan_with_a_label_has_are_no_feature_of_its_model(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    train, even = manifest["split"] == "train", manifest["patient"].astype(int) % 2 == 0
    manifest.loc[train & even, "cst"] = None
    manifest.loc[train & ~even, "FAVF"] = None
    write_table(tmp_path / "manifest.csv", manifest, MANIFEST)
    control(tmp_path, tmp_path / "out")
    assert "cst" in read_predictions(tmp_path / "out").metadata.plain()["features"]


def test_a_label_of_one_class_and_a_tiny_fraction(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path).assign(VMT=0)
    write_table(tmp_path / "manifest.csv", manifest, MANIFEST)
    control(tmp_path, tmp_path / "out", fraction=0.01)
    found = read_predictions(tmp_path / "out")
    assert found.metadata.plain()["n_train_patients"] == 1
    assert (found.probabilities()[:, 3] == 0).all()
    assert found.metadata.plain()["thresholds"]["VMT"] is None


def test_visits_are_ordered_by_number_within_their_eye() -> None:
    visits = ["W104", "W0", "V2", "V10", "", "baseline", "V1"]
    eyes = ["a", "a", "b", "b", "b", "c", ""]
    manifest = pd.DataFrame({"eye": eyes, "visit": visits, "patient": ["p"] * 7}, dtype="string")
    np.testing.assert_array_equal(visit_order(manifest), [1, 0, 0, 1, np.nan, 0, 0])


@pytest.mark.parametrize(
    "visits",
    [
        ["2019-12-30", "20200107", "2020-01-08 09:00", "2020-03-01"],
        ["D7", "W2", "day 21", "week 12"],
        ["visit 1 of 12", "visit 2 of 12", "visit 10 of 12"],
        ["3rd of 12", "10th of 12"],
    ],
)
def test_visits_are_ordered_by_time_whatever_the_order_of_the_rows(visits: list[str]) -> None:
    manifest = pd.DataFrame({"eye": "a", "visit": visits, "patient": "p"}, dtype="string")
    for seed in range(5):
        shuffled = manifest.sample(frac=1, random_state=seed)
        np.testing.assert_array_equal(visit_order(shuffled), shuffled.index.to_numpy())


@pytest.mark.parametrize(
    "visits", [["W20", "V3"], ["V1", "2019-03-01"], ["15.02.2019", "01.03.2019"], ["baseline", "W4", "W8"]]
)
def test_an_eye_with_times_that_cannot_be_compared_has_no_order_of_visits(
    visits: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    names, eyes = [*visits, "V2", "V1"], ["a"] * len(visits) + ["b", "b"]
    manifest = pd.DataFrame({"eye": eyes, "visit": names, "patient": "p"}, dtype="string")
    np.testing.assert_array_equal(visit_order(manifest), [np.nan] * len(visits) + [1, 0])
    (line,) = caplog.messages
    assert "order of visits is unknown for 1 eye(s)" in line
    assert all(repr(name) in line for name in visits)


def test_features_keep_missing_values_missing(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    features = clinical_features(read_table(tmp_path / "manifest.csv", MANIFEST))
    assert list(features.columns) == ["cst", "bcva", "slice", "visit_order", "trial"]
    assert features["cst"].isna().sum() == 6
    assert set(features["visit_order"]) == {0, 1}
    assert set(features["trial"]) == {0, 1}


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    with pytest.raises(UserError, match=r"splits\.csv: no fold 7; expected one of 0"):
        control(tmp_path, tmp_path / "out", fold=7)
    manifest.drop(columns=["IRF", "DRT/ME", "FAVF", "VMT"]).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(UserError, match="no label column"):
        control(tmp_path, tmp_path / "out")
