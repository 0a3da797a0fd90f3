"""External validation: numbers recomputed from scores.csv with scikit-learn, label maps in closed form, mistakes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, softmax
from scipy.stats import norm, t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score

from octdino.config import EvaluateSettings, ExternalSettings
from octdino.data.csv_io import probability_column, read_table
from octdino.data.schemas.csv_schemas import EXTERNAL
from octdino.errors import UserError
from octdino.evaluate import evaluate
from octdino.evaluate.external_validation import external_validation
from octdino.evaluate.label_maps import label_map
from octdino.plotting import notice_of
from tests.evaluate.evaluated import metrics_of, one
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


def external_scans(root: Path, arm: str = ARM, fold: int = 0) -> pd.DataFrame:
    """Ground truth and scores of the external scans, by pandas alone."""
    folder = root / "external/b"
    scores = pd.read_csv(folder / f"scores/{arm}/resnet18/f1/fold{fold}-seed0/scores.csv")
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
    bins = pd.qcut(calibrated, 10, labels=False, duplicates="drop")
    gaps = (truth - calibrated).groupby(bins).sum().abs().sum() / len(truth)
    assert found["ece_calibrated"] == pytest.approx(gaps, abs=0.02)


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


def test_probabilities_of_exclusive_classes_add_up_also_at_a_temperature() -> None:
    labels = label_map({"AMD": ["CNV", "DRUSEN"]}, ["AMD", "DME"], ["CNV", "DME", "DRUSEN", "NORMAL"], "b")
    p = softmax(np.random.default_rng(0).normal(size=(50, 4)), axis=1)
    combined = labels.probabilities(p, exclusive=True)
    assert combined[:, 0] == pytest.approx(p[:, 0] + p[:, 2])
    assert combined[:, 1] == pytest.approx(p[:, 1])
    warmer = p ** (1 / 2.0) / (p ** (1 / 2.0)).sum(1, keepdims=True)
    assert labels.calibrated(p, 2.0, exclusive=True)[:, 0] == pytest.approx(warmer[:, 0] + warmer[:, 2])
    independent = labels.calibrated(p, 2.0, exclusive=False)[:, 0]
    assert independent == pytest.approx(1 - (1 - expit(logit(p[:, 0]) / 2)) * (1 - expit(logit(p[:, 2]) / 2)))


def test_ground_truth_of_several_labels_is_unknown_only_where_an_unknown_one_decides() -> None:
    labels = label_map({"any": ["a", "b"]}, ["any"], ["a", "b"], "site")
    truth = np.array([[1, np.nan], [0, np.nan], [0, 0], [0, 1], [np.nan, np.nan]])
    assert labels.truth(truth)[:, 0] == pytest.approx([1, np.nan, 0, 1, np.nan], nan_ok=True)


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


def test_settings_take_one_label_without_brackets_and_null_for_none() -> None:
    cohort = {"name": "phantom", "phantom": {"seed": 9}}
    found = ExternalSettings.model_validate({"name": "b", "cohort": cohort, "labels": {"DME": "DME", "VMT": None}})
    assert found.labels == {"DME": ["DME"], "VMT": []}
