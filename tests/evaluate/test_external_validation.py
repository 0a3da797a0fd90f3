"""External validation: numbers recomputed from scores.csv with scikit-learn, label maps in closed form, mistakes."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm, t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score

from octdino.config import EvaluateSettings
from octdino.data.csv_io import probability_column, read_table, write_table
from octdino.data.schemas.csv_schemas import EXTERNAL, MANIFEST
from octdino.errors import UserError
from octdino.evaluate import evaluate
from octdino.evaluate.external_validation import external_validation
from octdino.plotting import notice_of
from tests.evaluate.evaluated import loop_calibration_error, metrics_of, one
from tests.external_results import write_external, write_internal

MAP = {"Edema": ["IRF", "DRT/ME"]}
ARM = "dino-linear"


def settings(labels: dict[str, list[str]] | None = None, **values: object) -> EvaluateSettings:
    site = {
        "name": "b",
        "cohort": {"name": "phantom", "phantom": {"seed": 9}},
        "labels": MAP if labels is None else labels,
    }
    return EvaluateSettings.model_validate({"resamples": 100, "external": [site], **values})


def compared(root: Path, folders: list[Path], chosen: EvaluateSettings) -> pd.DataFrame:
    external_validation(chosen, root / "cohort/manifest.csv", folders, [root / "external/b"], root / "evaluate")
    return read_table(root / "evaluate/external.csv", EXTERNAL)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, list[Path]]:
    root = tmp_path_factory.mktemp("results")
    folders = write_internal(root)
    write_external(root, folders)
    return root, compared(root, folders, settings()), folders


def external_scans(root: Path, arm: str = ARM, fold: int = 0, seed: int = 0) -> pd.DataFrame:
    """Ground truth and scores of the external scans, by pandas alone."""
    folder = root / "external/b"
    scores = pd.read_csv(folder / f"scores/{arm}/resnet18/f1/fold{fold}-seed{seed}/scores.csv")
    return pd.read_csv(folder / "cohort/manifest.csv", dtype={"patient": str}).merge(scores.drop(columns="patient"))


def either(table: pd.DataFrame) -> np.ndarray:
    first, second = (table[probability_column(label)].to_numpy() for label in MAP["Edema"])
    return np.asarray(first + second - first * second)  # of independent events


def test_external_numbers_are_those_of_scikit_learn(done: tuple[Path, pd.DataFrame, list[Path]]) -> None:
    root, table, _ = done
    scans = external_scans(root)
    card = json.loads((root / f"classify/{ARM}/resnet18/f1/fold0-seed0/classifier.json").read_text())
    scans = scans[scans["FAVF"].notna()]
    truth, p = scans["FAVF"].astype(int), scans["prob:FAVF"]
    found = {
        row["metric"]: row["external"]
        for _, row in table[(table["arm"] == ARM) & (table["label"] == "FAVF")].iterrows()
    }
    called = p >= card["thresholds"]["FAVF"]
    calibrated = expit(logit(p) / card["calibration"]["temperature"])
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(calibrated).to_numpy()[:, None], truth)
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, p), abs=1e-9)
    assert found["average_precision"] == pytest.approx(average_precision_score(truth, p), abs=1e-9)
    assert found["sensitivity"] == pytest.approx(recall_score(truth, called), abs=1e-9)
    assert found["specificity"] == pytest.approx(recall_score(1 - truth, ~called), abs=1e-9)
    assert found["brier_calibrated"] == pytest.approx(brier_score_loss(truth, calibrated), abs=1e-7)
    assert found["calibration_slope_calibrated"] == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
    assert found["ece"] == pytest.approx(loop_calibration_error(truth, p), abs=1e-6)
    assert found["ece_calibrated"] == pytest.approx(loop_calibration_error(truth, calibrated), abs=1e-6)


def test_a_label_that_stands_for_several_is_any_of_them_on_both_sides(
    done: tuple[Path, pd.DataFrame, list[Path]],
) -> None:
    root, table, _ = done
    row = one(table, arm=ARM, label="Edema", metric="auroc")
    scans = external_scans(root)
    assert row["external"] == pytest.approx(roc_auc_score(scans["Edema"], either(scans)), abs=1e-9)
    inside = pd.read_csv(root / f"classify/{ARM}/resnet18/f1/fold0-seed0/predictions.csv")
    inside = inside.assign(any=inside[MAP["Edema"]].max(axis=1), p=either(inside))
    test, val = (inside[inside["split"] == name] for name in ("test", "val"))
    assert row["internal"] == pytest.approx(roc_auc_score(test["any"], test["p"]), abs=1e-9)
    assert row["drop"] == pytest.approx(row["internal"] - row["external"], abs=1e-12)
    # Its threshold is the best one by Youden's index on the same combined scores of validation patients.
    best = max(val["p"], key=lambda at: _youden(val["any"], val["p"] >= at))
    between = (val["p"][val["p"] < best].max() + best) / 2
    at = one(table, arm=ARM, label="Edema", metric="sensitivity")
    assert at["external"] == pytest.approx(recall_score(scans["Edema"], either(scans) >= between), abs=1e-9)


def _youden(truth: pd.Series, called: pd.Series) -> float:
    return float(recall_score(truth, called) + recall_score(1 - truth, ~called))


@pytest.mark.usefixtures("no_figures")
def test_internal_values_of_labels_of_the_same_name_are_those_of_the_evaluation(
    done: tuple[Path, pd.DataFrame, list[Path]],
) -> None:
    root, table, folders = done
    evaluate(settings(), root / "cohort/manifest.csv", folders, root / "evaluate")
    metrics = metrics_of(root)
    for metric in ("auroc", "ece_calibrated", "sensitivity@spec90"):
        own = one(metrics, arm=ARM, label="FAVF", metric=metric)
        row = one(table, arm=ARM, label="FAVF", metric=metric)
        assert (row["internal"], row["internal_low"], row["internal_high"]) == pytest.approx(
            (own["value"], own["low"], own["high"]), abs=1e-12
        )


def test_the_interval_of_a_drop_is_of_two_independent_bootstraps(done: tuple[Path, pd.DataFrame, list[Path]]) -> None:
    root, table, _ = done
    scans = external_scans(root)
    inside = pd.read_csv(root / f"classify/{ARM}/resnet18/f1/fold0-seed0/predictions.csv", dtype={"patient": str})
    inside = inside[inside["split"] == "test"]
    replicates = []
    for seed, part in ((0, inside), (2, scans)):
        patients = list(dict.fromkeys(part["patient"]))
        counts = np.random.default_rng(seed).multinomial(len(patients), np.full(len(patients), 1 / len(patients)), 100)
        weights = [dict(zip(patients, drawn, strict=True)) for drawn in counts]
        known = part[part["FAVF"].notna()]
        replicates.append(
            [
                roc_auc_score(known["FAVF"], known["prob:FAVF"], sample_weight=known["patient"].map(one))
                for one in weights
            ]
        )
    n = min(inside["patient"].nunique(), scans["patient"].nunique())
    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf(0.025, n - 1))  # Hesterberg 2015
    low, high = np.quantile(np.subtract(*replicates), [tail, 1 - tail])
    row = one(table, arm=ARM, label="FAVF", metric="auroc")
    assert (row["drop_low"], row["drop_high"]) == pytest.approx((low, high), abs=1e-9)


def test_out_of_distribution_is_a_share_of_all_scans(done: tuple[Path, pd.DataFrame, list[Path]]) -> None:
    root, table, _ = done
    row = one(table, arm=ARM, label="all", metric="out_of_distribution")
    assert row["external"] == pytest.approx((external_scans(root)["out_of_distribution"] > 1).mean())
    assert row["internal"] == pytest.approx(0.1)


def test_labels_without_a_counterpart_are_left_out_and_named(done: tuple[Path, pd.DataFrame, list[Path]]) -> None:
    root, table, _ = done
    assert set(table["label"]) == {"Edema", "FAVF", "macro", "all"}
    tested = json.loads((root / "evaluate/external.json").read_text())["cohorts"]["b"]
    assert tested["left_out"] == ["Scar"]
    assert tested["unused"] == ["VMT"]
    assert tested["labels"] == {"Edema": ["IRF", "DRT/ME"], "FAVF": ["FAVF"]}


def test_models_of_folds_are_scored_one_by_one_and_averaged(tmp_path: Path) -> None:
    folders = write_internal(tmp_path, (ARM, "scratch-finetune"), folds=3)
    write_external(tmp_path, folders)
    table = compared(tmp_path, folders, settings())
    each = [external_scans(tmp_path, fold=fold).dropna(subset="FAVF") for fold in range(3)]
    expected = np.mean([roc_auc_score(scans["FAVF"], scans["prob:FAVF"]) for scans in each])
    assert one(table, arm=ARM, label="FAVF", metric="auroc")["external"] == pytest.approx(expected, abs=1e-9)
    assert json.loads((tmp_path / "evaluate/external.json").read_text())["cohorts"]["b"]["folds"] == 3


def test_two_patients_give_no_number_and_a_sentence_in_place_of_the_figure(tmp_path: Path) -> None:
    folders = write_internal(tmp_path)
    write_external(tmp_path, folders, patients=2)
    table = compared(tmp_path, folders, settings())
    assert table.loc[(table["label"] != "all"), "external"].isna().all()
    assert table["external_low"].isna().all()  # nor an interval of the share out of distribution
    assert notice_of((tmp_path / "evaluate/external.svg").read_text()).startswith("Nothing to plot")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"Edema": ["AMD"]}, "'AMD' is no label of the internal cohort"),
        ({"AMD": ["IRF"]}, "'AMD' is none of its labels"),
        ({"FAVF": []}, "none of its labels"),
    ],
)
def test_a_wrong_map_is_one_line(
    given: dict[str, list[str]], words: str, done: tuple[Path, pd.DataFrame, list[Path]]
) -> None:
    root, _, folders = done
    with pytest.raises(UserError, match=words):
        compared(root, folders, settings(given))


def test_seeds_are_averaged_on_both_sides(tmp_path: Path) -> None:
    folders = write_internal(tmp_path, seeds=2)
    write_external(tmp_path, folders)
    table = compared(tmp_path, folders, settings())
    auroc = table[(table["label"] == "FAVF") & (table["metric"] == "auroc") & (table["arm"] == ARM)]
    assert auroc["seed"].fillna(-1).tolist() == [0, 1, -1]
    each = [external_scans(tmp_path, seed=seed).dropna(subset="FAVF") for seed in range(2)]
    expected = [roc_auc_score(scans["FAVF"], scans["prob:FAVF"]) for scans in each]
    assert auroc["external"].tolist() == pytest.approx([*expected, np.mean(expected)], abs=1e-9)
    assert auroc["internal"].iloc[2] == pytest.approx(auroc["internal"].iloc[:2].mean(), abs=1e-12)
    assert auroc["drop"].iloc[2] == pytest.approx(auroc["drop"].iloc[:2].mean(), abs=1e-12)
    shares = table[(table["label"] == "all") & (table["arm"] == ARM)]
    flagged = [(external_scans(tmp_path, seed=seed)["out_of_distribution"] > 1).mean() for seed in range(2)]
    assert shares["external"].tolist() == pytest.approx([*flagged, np.mean(flagged)])


def test_the_macro_row_counts_the_scans_of_the_labels_that_it_is_the_mean_of(tmp_path: Path) -> None:
    folders = write_internal(tmp_path)
    path = write_external(tmp_path, folders) / "cohort/manifest.csv"
    manifest = read_table(path, MANIFEST)
    few = manifest["patient"].isin(sorted(set(manifest["patient"]))[:2])
    manifest["VMT"] = np.where(few, 1.0, np.nan)  # no patient without it: not evaluable
    only = manifest["patient"].isin(sorted(set(manifest["patient"]))[:1])
    manifest.loc[only, ["Edema", "FAVF"]] = None
    write_table(path, manifest, MANIFEST)
    row = one(compared(tmp_path, folders, settings()), arm=ARM, label="macro", metric="auroc")
    known = manifest[manifest[["Edema", "FAVF"]].notna().any(axis=1)]
    assert (row["n_external_patients"], row["n_external_scans"]) == (known["patient"].nunique(), len(known))
    inside = pd.read_csv(tmp_path / f"classify/{ARM}/resnet18/f1/fold0-seed0/predictions.csv")
    inside = inside[(inside["split"] == "test") & inside[["IRF", "FAVF"]].notna().any(axis=1)]
    assert (row["n_internal_patients"], row["n_internal_scans"]) == (inside["patient"].nunique(), len(inside))
    assert pd.isna(row["n_external_positive"])


def test_rows_of_table_and_figure_are_in_the_order_of_the_arms_that_were_named(tmp_path: Path) -> None:
    folders = write_internal(tmp_path, ("scratch-finetune", "dino-linear", "simclr-linear"))
    write_external(tmp_path, folders)
    for named in (folders, folders[::-1]):
        table = compared(tmp_path, named, settings())
        expected = [folder.parts[-4] for folder in named]
        for rows in (table, table[table["label"] == "all"]):
            assert list(dict.fromkeys(rows["arm"])) == expected
        words = list(ElementTree.parse(tmp_path / "evaluate/external.svg").getroot().itertext())
        places = [words.index(arm) for arm in expected]
        assert places == sorted(places)


def test_only_external_labels_whose_internal_labels_are_all_compared_are_tested(
    done: tuple[Path, pd.DataFrame, list[Path]], tmp_path: Path
) -> None:
    root, table, folders = done
    for name in ("cohort", "external"):
        (tmp_path / name).symlink_to(root / name)
    chosen = settings().model_copy(update={"labels": ["FAVF", "IRF", "VMT"]})
    found = compared(tmp_path, folders, chosen)
    assert set(found["label"]) == {"FAVF", "macro", "all"}, "Edema stands for DRT/ME, too"
    row, macro = (one(found, arm=ARM, label=label, metric="auroc") for label in ("FAVF", "macro"))
    before = one(table, arm=ARM, label="FAVF", metric="auroc")
    assert row["external"] == macro["external"] == before["external"]
    tested = json.loads((tmp_path / "evaluate/external.json").read_text())["cohorts"]["b"]
    assert (tested["left_out"], tested["unused"]) == (["Edema", "Scar"], ["IRF", "VMT"])
    for labels, words in (
        (["VMT"], r"among evaluate\.labels \(VMT\)"),
        (["IRFF"], "evaluate.labels: IRFF is no label"),
    ):
        with pytest.raises(UserError, match=words):
            compared(tmp_path, folders, settings().model_copy(update={"labels": labels}))


def test_scores_of_two_classifiers_that_were_swapped_are_refused(tmp_path: Path) -> None:
    folders = write_internal(tmp_path)
    scores = write_external(tmp_path, folders) / "scores"
    for old, new in ((ARM, "aside"), ("scratch-finetune", ARM), ("aside", "scratch-finetune")):
        (scores / old).rename(scores / new)
    with pytest.raises(UserError, match="by other weights"):
        compared(tmp_path, folders, settings())


def test_scores_by_other_weights_or_of_other_scans_are_refused(tmp_path: Path) -> None:
    folders = write_internal(tmp_path)
    path = write_external(tmp_path, folders) / f"scores/{ARM}/resnet18/f1/fold0-seed0/scores.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "weights_sha256": "b" * 64}))
    with pytest.raises(UserError, match="by other weights"):
        compared(tmp_path, folders, settings())
    path.write_text(json.dumps({**card, "source": "another"}))
    with pytest.raises(UserError, match="of other scans"):
        compared(tmp_path, folders, settings())
