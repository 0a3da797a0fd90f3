"""Subgroups: who is in which, and the numbers of a group are those of its scans alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from octdino.config import EvaluateSettings
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import probability_column, read_table
from octdino.data.schemas.csv_schemas import MANIFEST, SUBGROUPS
from octdino.evaluate import evaluate
from octdino.evaluate.image_quality import image_qualities, noise, quality
from octdino.evaluate.subgroups import by_band, by_name, groupings, position
from tests.results import drawing, write_arm, write_cohort, write_store


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_store(root, write_cohort(root))
    folders = [
        write_arm(root / "classify", root, arm, fraction, seed=seed)
        for arm in ("scratch-finetune", "dino-linear", "clinical")
        for fraction in (0.3, 1.0)
        for seed in (0, 1)
    ]
    with drawing():
        evaluate(EvaluateSettings(resamples=100, small_group=11), root / "manifest.csv", folders, root)
    return root


def table_of(root: Path) -> pd.DataFrame:
    return read_table(root / "subgroups.csv", SUBGROUPS)


def test_a_groups_auroc_is_scikit_learns_on_its_scans(done: Path) -> None:
    manifest = read_table(done / "manifest.csv", MANIFEST).set_index("scan_id")
    table = table_of(done)
    assert set(table["fraction"]) == {1.0}
    assert table["seed"].isna().all()  # two seeds: their mean
    found = table[(table["arm"] == "dino-linear") & (table["subgroup"] == "trial") & (table["label"] == "IRF")]
    values: dict[str, list[float]] = {"PRIME": [], "TREX DME": []}
    for seed in (0, 1):
        rows = pd.read_csv(done / f"classify/dino-linear/resnet18/f1/fold0-seed{seed}/predictions.csv")
        rows = rows[rows["split"] == "test"]
        trial = manifest.loc[rows["scan_id"], "trial"].to_numpy()
        for name, scores in values.items():
            part = rows[trial == name]
            scores.append(roc_auc_score(part["IRF"], part[probability_column("IRF")]))
            row = found[found["group"] == name].iloc[0]
            assert row["n_scans"] == len(part)
            assert row["n_patients"] == part["patient"].nunique()
            assert row["n_positive"] == part["IRF"].sum()
            assert row["n_positive_patients"] == part.loc[part["IRF"] == 1, "patient"].nunique()
    for name, scores in values.items():
        row = found[found["group"] == name].iloc[0]
        assert row["value"] == pytest.approx(np.mean(scores), abs=1e-12)
        assert row["low"] < row["value"] < row["high"]


def test_small_groups_are_marked_and_do_not_choose_the_labels(done: Path) -> None:
    table = table_of(done)
    macro = table[(table["arm"] == "dino-linear") & (table["label"] == "macro")]
    trial = macro[macro["subgroup"] == "trial"].set_index("group")
    assert (trial["small"] == (trial["n_patients"] < 11)).all()
    assert set(trial["small"]) == {0, 1}, "the fixture has a small and a large trial"
    bands = macro[macro["subgroup"] == "CST"]
    # DRT/ME goes with CST: in the thin and the thick band all scans are of one class, so the mean is over the others.
    assert set(bands["n_labels"]) == {2}
    thin = table[(table["arm"] == "dino-linear") & (table["group"] == "below 320 µm")].set_index("label")["value"]
    assert pd.isna(thin["DRT/ME"])
    assert thin["macro"] == pytest.approx((thin["IRF"] + thin["FAVF"]) / 2)


def test_all_scans_have_the_numbers_of_metrics_csv(done: Path) -> None:
    metrics = pd.read_csv(done / "metrics.csv")
    metrics = metrics[(metrics["metric"] == "auroc") & metrics["seed"].isna() & (metrics["fraction"] == 1)]
    table = table_of(done)
    table = table[table["group"] == "all"]
    both = table.merge(metrics, on=["arm", "label"], suffixes=("", "_there"))
    assert len(both) == 15
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(both[column].astype(float), both[f"{column}_there"], atol=1e-12)


def test_groupings_in_their_order_and_only_where_there_are_two(done: Path) -> None:
    rows = read_table(done / "manifest.csv", MANIFEST)
    found = {one.name: one.groups for one in groupings(EvaluateSettings(), rows, None)}
    assert list(found) == ["all", "trial", "CST", "BCVA", "position"]  # all eyes of the fixture are right ones
    assert found["CST"] == ["below 320 µm", "320 to 400 µm", "400 µm or more"]
    assert set(table_of(done)["subgroup"]) == {*found, "quality"}


def test_bands_names_and_positions() -> None:
    band = by_band("CST", np.array([300, 320, 399.9, 400, np.nan]), [320, 400], "µm")
    assert band.member.tolist() == [0, 1, 1, 2, -1]
    assert by_band("CST", np.array([300.0]), [], "µm").groups == []
    name = by_name("eye side", pd.Series(["OS", "", "OD", None], dtype="string"))
    assert (name.groups, name.member.tolist()) == (["OD", "OS"], [1, -1, 0, -1])
    rows = pd.DataFrame({"eye": "a", "visit": [*["1"] * 5, "2", "3"], "slice": [1, 12, 25, 38, 49, 49, None]})
    assert position(rows).tolist() == [2, 1, 0, 1, 2, 2, -1]
    assert position(rows.assign(slice=pd.array([None] * 7, dtype="Int64"))).tolist() == [-1] * 7


def test_noise_is_what_was_added_and_quality_falls_with_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:96, :96] / 96
    clean = 128 + 60 * np.sin(3 * row) * np.cos(2 * column)
    grades = []
    for sigma in (2.0, 5.0, 10.0):
        image = clean + rng.normal(0, sigma, clean.shape)
        assert noise(image) == pytest.approx(sigma, rel=0.06)
        grades.append(quality(np.clip(image, 0, 255).astype(np.uint8)[None]))
    assert grades == sorted(grades, reverse=True)
    assert quality(np.full((3, 20, 20), 7, np.uint8)) == 0.0
    manifest = write_cohort(tmp_path)
    write_store(tmp_path, manifest)
    rows = np.array([3, 10, 11, 200])
    cohort = read_cohort(tmp_path / "scans.h5")
    assert len(image_qualities(cohort, rows)) == 4
    assert image_qualities(cohort, rows)[2] == image_qualities(cohort, np.array([11]))[0]
