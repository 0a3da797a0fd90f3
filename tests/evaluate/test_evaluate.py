"""The stage from folders to tables and figures."""

import json
import logging
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from octdino.config import EvaluateSettings
from octdino.data.csv_io import probability, read_table, write_table
from octdino.data.predictions import read_predictions
from octdino.data.sampling_units import PATIENT
from octdino.data.schemas.csv_schemas import COMPARISON, MANIFEST, METRICS, SPLITS, SUBGROUPS
from octdino.errors import UserError
from octdino.evaluate import evaluate
from octdino.evaluate.comparison_figures import apart, forest
from octdino.plotting import looks
from octdino.stats.bootstrap import draw_patients
from tests.results import LABELS, write_arm, write_cohort, write_store

SETTINGS = EvaluateSettings(resamples=100)
FIGURES = ["comparison.svg", "difference.svg", "label_efficiency.svg", "pr.svg", "roc.svg"]
FIGURES += ["reliability.svg", "calibration.svg", "subgroups.svg", "labels.svg", "label_difference.svg"]
TABLES = ["metrics.csv", "comparison.csv", "subgroups.csv"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_cohort(root / "cohort")
    folders = [
        write_arm(root / "classify", root / "cohort", arm, fraction)
        for arm in ("scratch-finetune", "dino-linear", "simclr-linear", "clinical")
        for fraction in (0.3, 1.0)
    ]
    evaluate(SETTINGS, root / "cohort" / "manifest.csv", folders, root / "evaluate")
    return root


def metrics_of(root: Path) -> pd.DataFrame:
    return read_table(root / "evaluate" / "metrics.csv", METRICS)


def one(table: pd.DataFrame, **values: object) -> pd.Series:
    for name, value in values.items():
        table = table[table[name] == value]
    assert len(table) == 1, table
    return table.iloc[0]


def test_values_are_scikit_learns_on_test_scans(done: Path) -> None:
    folder = done / "classify" / "dino-linear" / "resnet18" / "f0.3" / "fold0-seed0"
    found = read_predictions(folder)
    table, metrics = found.table[found.table["split"] == "test"], metrics_of(done)
    macro: dict[str, list[float]] = {}
    for label in ("IRF", "DRT/ME", "FAVF"):
        rows = table[table[label].notna()]
        y, p = rows[label].astype(int), rows[probability(label)].astype(float)
        positive = p >= found.metadata.plain()["thresholds"][label]
        expected = {
            "auroc": roc_auc_score(y, p), "average_precision": average_precision_score(y, p),
            "f1": f1_score(y, positive), "balanced_accuracy": balanced_accuracy_score(y, positive),
        }  # fmt: skip
        for metric, value in expected.items():
            row = one(metrics, arm="dino-linear", fraction=0.3, label=label, metric=metric)
            assert row["value"] == pytest.approx(value, abs=1e-9)
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n_scans"] == len(rows)
            assert row["n_patients"] == rows["patient"].nunique()
            assert row["n_positive"] == y.sum()
            assert row["n_positive_patients"] == rows.loc[y == 1, "patient"].nunique()
            assert row["n_resamples"] == 100
            macro.setdefault(metric, []).append(value)
    for metric, values in macro.items():
        row = one(metrics, arm="dino-linear", fraction=0.3, label="macro", metric=metric)
        assert row["value"] == pytest.approx(np.mean(values), abs=1e-9)


def test_every_interval_holds_its_value_and_means_lie_within(done: Path) -> None:
    metrics = metrics_of(done).dropna(subset=["value"])
    assert {"ece", "ece_calibrated", "calibration_slope", "patient_auroc"} <= set(metrics["metric"])
    outside = metrics[(metrics["value"] < metrics["low"] - 1e-12) | (metrics["value"] > metrics["high"] + 1e-12)]
    assert outside.empty, outside
    for (_, arm, fraction), part in metrics.groupby(["metric", "arm", "fraction"]):
        labels = part[~part["label"].isin(["macro", "weighted"])]["value"]
        means = part[part["label"].isin(["macro", "weighted"])]["value"]
        assert means.between(labels.min() - 1e-12, labels.max() + 1e-12).all(), (arm, fraction)


def test_bca_moves_intervals_and_no_value(done: Path, tmp_path: Path) -> None:
    folders = [path.parent for path in sorted(done.glob("classify/**/predictions.csv"))]
    settings = EvaluateSettings(resamples=100, interval="bca")
    evaluate(settings, done / "cohort" / "manifest.csv", folders, tmp_path)
    before, after = metrics_of(done), read_table(tmp_path / "metrics.csv", METRICS)
    pd.testing.assert_series_equal(before["value"], after["value"])
    both = before["low"].notna() & after["low"].notna()
    gap = (before["low"] - after["low"])[both].abs()
    assert 0 < gap[before["metric"] == "auroc"].mean() < 0.03


def test_rare_labels_are_not_evaluable_and_have_no_number(done: Path) -> None:
    metrics = metrics_of(done)
    rare = metrics[metrics["label"] == "VMT"]
    assert set(rare["tier"]) == {"not evaluable"}
    assert rare[["value", "low", "high"]].isna().all(axis=None)
    assert not (read_table(done / "evaluate" / "comparison.csv", COMPARISON)["label"] == "VMT").any()
    assert set(metrics.loc[metrics["label"] == "IRF", "tier"]) == {"primary"}


def test_differences_are_paired_and_adjusted(done: Path) -> None:
    metrics, comparison = metrics_of(done), read_table(done / "evaluate" / "comparison.csv", COMPARISON)
    for label in ("macro", "IRF"):
        pair = [
            one(metrics, arm=arm, fraction=1.0, label=label, metric="auroc")
            for arm in ("dino-linear", "scratch-finetune")
        ]
        row = one(
            comparison, arm="dino-linear", reference="scratch-finetune", fraction=1.0, label=label, metric="auroc"
        )
        assert row["difference"] == pytest.approx(pair[0]["value"] - pair[1]["value"], abs=1e-12)
        assert row["low"] < row["difference"] < row["high"]
        assert row["p_adjusted"] >= row["p"]
    against = comparison[comparison["reference"] == "clinical"]
    assert set(against["arm"]) == {"scratch-finetune", "dino-linear", "simclr-linear"}
    assert set(comparison["arm"]) == set(against["arm"])


def test_the_paired_interval_is_a_naive_loops(tmp_path: Path) -> None:
    """Same draws, scikit-learn in a plain loop over resamples and labels."""
    write_cohort(tmp_path)
    folders = [write_arm(tmp_path, tmp_path, arm) for arm in ("scratch-finetune", "dino-linear")]
    settings = EvaluateSettings(resamples=100, small_sample_correction=False)
    evaluate(settings, tmp_path / "manifest.csv", folders, tmp_path)
    tables = [read_predictions(folder).take("test").table for folder in folders]
    patient, names = pd.factorize(tables[0]["patient"])
    differences = []
    for column in draw_patients(len(names), 100, seed=0)[:, 1:].T:
        rows = np.repeat(np.arange(len(patient)), column[patient].astype(int))
        drawn = [table.iloc[rows] for table in tables]
        scores = [[auroc(table, label) for label in ("IRF", "DRT/ME", "FAVF")] for table in drawn]
        differences.append(np.mean(scores[1]) - np.mean(scores[0]))
    row = one(read_table(tmp_path / "comparison.csv", COMPARISON), label="macro", metric="auroc")
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-9)


def auroc(table: pd.DataFrame, label: str) -> float:
    known = table[table[label].notna()]
    return float(roc_auc_score(known[label].astype(int), known[probability(label)]))


def test_the_same_input_gives_the_same_bytes(done: Path, tmp_path: Path) -> None:
    folders = [path.parent for path in sorted(done.glob("classify/**/predictions.csv"), reverse=True)]
    evaluate(SETTINGS, done / "cohort" / "manifest.csv", folders, tmp_path)
    for name in [*TABLES, *FIGURES]:
        assert (tmp_path / name).read_bytes() == (done / "evaluate" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*TABLES, *FIGURES])


def test_figures_have_no_background_and_follow_the_pages_ink(done: Path) -> None:
    for name in FIGURES:
        text = (done / "evaluate" / name).read_text()
        assert "currentColor" in text
        assert "<text" in text
        assert "#ffffff" not in text
        assert "<dc:date>" not in text
        assert 'role="img" aria-label="' in text


def test_folds_are_pooled_and_seeds_are_averaged(tmp_path: Path) -> None:
    write_cohort(tmp_path, folds=3)
    folders = [
        write_arm(tmp_path, tmp_path, arm, fold=fold, seed=seed)
        for arm in ("scratch-finetune", "dino-linear")
        for fold in range(3)
        for seed in (0, 1)
    ]
    evaluate(SETTINGS, tmp_path / "manifest.csv", folders, tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    assert set(metrics["fold"]) == {"pooled"}
    macro = metrics[(metrics["arm"] == "dino-linear") & (metrics["label"] == "macro") & (metrics["metric"] == "auroc")]
    mean = macro[macro["seed"].isna()].iloc[0]
    assert mean["n_patients"] == 60
    assert mean["value"] == pytest.approx(macro[macro["seed"].notna()]["value"].mean())
    comparison = read_table(tmp_path / "comparison.csv", COMPARISON)
    assert set(comparison["seed"].fillna(-1)) == {-1, 0, 1}
    parts = [read_predictions(f).take("test").table for f in folders if "dino" in str(f) and f.name.endswith("seed1")]
    pooled = pd.concat(parts)
    assert one(metrics[metrics["seed"] == 1], arm="dino-linear", label="IRF", metric="auroc")["value"] == pytest.approx(
        roc_auc_score(pooled["IRF"], pooled["prob:IRF"])
    )


def test_repeats_of_a_cross_validation_are_averaged(tmp_path: Path) -> None:
    """Folds 3 to 5 divide the patients once more (here alike, in another order); each repeat is pooled by itself."""
    write_cohort(tmp_path, folds=3)
    splits = pd.read_csv(tmp_path / "splits.csv", dtype={"patient": str, "group": str})
    again = splits.assign(fold=3 + (splits["fold"] + 1) % 3)
    write_table(tmp_path / "splits.csv", pd.concat([splits, again]), SPLITS)
    arms = ("scratch-finetune", "dino-linear")
    folders = [write_arm(tmp_path, tmp_path, arm, fold=fold) for arm in arms for fold in range(6)]
    evaluate(SETTINGS, tmp_path / "manifest.csv", folders, tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    row = one(metrics, arm="dino-linear", label="IRF", metric="auroc")
    assert (row["fold"], row["n_patients"], row["n_scans"]) == ("pooled", 60, 360)
    tables = [read_predictions(folder).take("test").table for folder in folders[6:]]
    pooled = [pd.concat(tables[:3]), pd.concat(tables[3:])]
    expected = [roc_auc_score(part["IRF"], part["prob:IRF"]) for part in pooled]
    assert expected[0] != expected[1]
    assert row["value"] == pytest.approx(np.mean(expected), abs=1e-12)
    groups = read_table(tmp_path / "subgroups.csv", SUBGROUPS)
    assert one(groups, arm="dino-linear", label="IRF", group="all")["value"] == pytest.approx(np.mean(expected))
    with pytest.raises(UserError, match="is tested in one of repeats 0 and 1 only"):
        evaluate(SETTINGS, tmp_path / "manifest.csv", [f for f in folders if not f.name.startswith("fold5")], tmp_path)


def test_some_labels_only(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folder = write_arm(tmp_path, tmp_path, "dino-linear")
    settings = EvaluateSettings(resamples=100, labels=["FAVF", "IRF"])
    evaluate(settings, tmp_path / "manifest.csv", [folder], tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    auroc = metrics[metrics["metric"] == "auroc"].set_index("label")["value"]
    assert auroc.index.tolist() == ["IRF", "FAVF", "macro", "weighted"]
    assert auroc["macro"] == pytest.approx((auroc["IRF"] + auroc["FAVF"]) / 2)
    with pytest.raises(UserError, match=r"evaluate.labels: Drusen is no label of .*manifest.csv; it has IRF, DRT/ME"):
        evaluate(EvaluateSettings(labels=["Drusen"]), tmp_path / "manifest.csv", [folder], tmp_path)


def test_a_label_without_a_threshold_is_in_nobodys_macro_f1(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folders = [write_arm(tmp_path, tmp_path, arm) for arm in ("scratch-finetune", "dino-linear")]
    card = json.loads((folders[1] / "classifier.json").read_text())
    card["thresholds"]["FAVF"] = None
    (folders[1] / "classifier.json").write_text(json.dumps(card))
    evaluate(SETTINGS, tmp_path / "manifest.csv", folders, tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    assert pd.isna(one(metrics, arm="dino-linear", label="FAVF", metric="f1")["value"])
    for arm in ("scratch-finetune", "dino-linear"):
        parts = [one(metrics, arm=arm, label=label, metric="f1")["value"] for label in ("IRF", "DRT/ME")]
        assert one(metrics, arm=arm, label="macro", metric="f1")["value"] == pytest.approx(np.mean(parts))


def test_one_arm_and_nothing_evaluable_still_end_well(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folder = write_arm(tmp_path, tmp_path, "scratch-finetune")
    settings = EvaluateSettings(resamples=100, min_positive_patients=1000)
    evaluate(settings, tmp_path / "manifest.csv", [folder / "predictions.csv"], tmp_path)
    metrics = read_table(tmp_path / "metrics.csv", METRICS)
    assert metrics["value"].isna().all()
    assert set(metrics["tier"]) == {"not evaluable"}
    assert read_table(tmp_path / "comparison.csv", COMPARISON).empty
    assert "no label is evaluable" in (tmp_path / "roc.svg").read_text()


def edit(path: Path, row: int, column: str, value: object) -> None:
    table = pd.read_csv(path, dtype=object)
    table.loc[row, column] = value
    table.to_csv(path, index=False)


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
    card = json.loads((folders[1] / "classifier.json").read_text())
    (folders[1] / "classifier.json").write_text(json.dumps({**card, "fold": 1}))
    refused("tested in folds")
    folders.clear()
    refused("nothing to evaluate")


def test_a_missing_labelled_test_scan_is_named(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folder = write_arm(tmp_path, tmp_path, "dino-linear")
    table = pd.read_csv(folder / "predictions.csv", dtype=object)
    table[table["split"] == "val"].to_csv(folder / "predictions.csv", index=False)
    with pytest.raises(UserError, match="120 labelled test scans are missing"):
        evaluate(SETTINGS, tmp_path / "manifest.csv", [folder], tmp_path / "out")


def test_labels_and_schema_of_the_fixture() -> None:
    assert not set(LABELS) & {column.name for column in MANIFEST}


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
    """The text of figures, and what is read aloud of them."""
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
    for words in ("95 % intervals over", "of labelled training", "labelled training", "fewer than 10"):
        assert f"{words} {unit}" in text, words
    assert f"temperature of validation {unit}" in text
    assert not re.search(rf"\b{other}\b", text)
    assert ("pat.," in text) == (state == "known")
    assert f"2 classifiers, 20 test {unit}, labels: " in caplog.text
    assert ("Patients are unknown." in caplog.text) == (state == "unknown")


def test_a_filled_point_of_a_difference_is_one_whose_adjusted_p_is_below_the_level() -> None:
    common = {"arm": "dino-linear", "backbone": "b", "fraction": 1.0, "difference": 0.1, "low": 0.01, "high": 0.2}
    filled = []
    for p, level in ((0.058, 0.05), (0.049, 0.05), (0.058, 0.1), (0.04, 0.01)):
        table = pd.DataFrame([{**common, "p_adjusted": p}])
        figure = forest(table, "difference", "", looks(["dino-linear"]), {}, PATIENT, level)
        (point,) = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
        filled.append(point.get_markerfacecolor() != "none")
    assert filled == [False, True, True, False]
