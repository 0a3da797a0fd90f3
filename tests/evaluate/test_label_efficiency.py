"""Label efficiency and power: the tables against independent computations, and what is never invented."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from octdino.config import EvaluateSettings
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import COMPARISON, METRICS
from octdino.data.schemas.evaluate_schemas import LABEL_EFFICIENCY, POWER
from octdino.evaluate import evaluate
from octdino.evaluate.label_efficiency import supervised_arm
from octdino.plotting import notice_of
from octdino.stats.label_efficiency import as_patients, isotonic, log_patients_needed, shown_fraction
from octdino.stats.power import patients_for_power, power_of
from tests.evaluate.evaluated import one
from tests.results import drawing, write_arm, write_cohort

PATIENTS = np.array([10, 25, 50, 100])
SETTINGS = EvaluateSettings(resamples=100)


def test_isotonic_curves_are_scikit_learns() -> None:
    curves = np.random.default_rng(0).normal(0, 1, (6, 50))
    expected = [IsotonicRegression().fit_transform(np.arange(6), curve) for curve in curves.T]
    np.testing.assert_allclose(isotonic(curves), np.stack(expected, axis=1), atol=1e-12)


def test_the_number_is_where_scipys_monotone_curve_has_the_score() -> None:
    curve = np.array([0.60, 0.70, 0.68, 0.80])
    rising = IsotonicRegression().fit_transform(np.arange(4), curve)
    inverse = brentq(lambda at: PchipInterpolator(np.log(PATIENTS), rising)(at) - 0.75, np.log(50), np.log(100))
    found = log_patients_needed(PATIENTS, curve[:, None], np.array([0.75]))
    assert found[0] == pytest.approx(inverse, abs=1e-4)
    at_points = log_patients_needed(PATIENTS, np.tile(curve[:, None], 3), np.array([0.60, 0.69 - 1e-9, 0.80]))
    np.testing.assert_allclose(np.exp(at_points), [10, 25, 100], rtol=1e-3)  # a plateau: its first patient


def test_a_score_beyond_the_curve_is_a_bound_and_no_extrapolation() -> None:
    curve = np.tile(np.array([0.6, 0.7, 0.75, 0.8])[:, None], 3)
    above, below, unknown = log_patients_needed(PATIENTS, curve, np.array([0.81, 0.59, math.nan]))
    assert as_patients(above, PATIENTS) == (100, "more than")
    assert as_patients(below, PATIENTS) == (10, "fewer than")
    assert math.isnan(unknown)
    falling = log_patients_needed(PATIENTS, curve[::-1, :1], np.array([0.7124]))  # isotonic: one flat line at 0.7125
    assert as_patients(float(falling[0]), PATIENTS) == (10, "fewer than")


def test_the_supervised_arm_is_scratch_finetune_or_the_one_there_is() -> None:
    assert supervised_arm("dino-linear", {"dino-linear", "scratch-linear", "scratch-finetune"}) == "scratch-finetune"
    assert supervised_arm("imagenet-linear", {"imagenet-linear", "scratch-linear"}) == "imagenet-linear"
    assert supervised_arm("dino-linear", {"imagenet-finetune", "scratch-linear", "dino-knn"}) == "scratch-linear"
    assert supervised_arm("dino-linear", {"dino-linear", "clinical"}) is None
    assert [shown_fraction(given) for given in ([1.0, 0.1], [0.05, 0.2, 1.0], [0.25, 1.0])] == [0.1, 0.05, 0.25]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two arms at three fractions."""
    root = tmp_path_factory.mktemp("results")
    write_cohort(root / "cohort", patients=90)
    folders = [
        write_arm(root / "classify", root / "cohort", arm, fraction, seed=seed, skill=skill)
        for arm, skill in (("scratch-finetune", 0.7), ("dino-linear", 0.75), ("clinical", 0.5))
        for fraction in (0.1, 0.4, 1.0)
        for seed in (0, 1)
    ]
    with drawing("plot_patients_needed"):
        evaluate(SETTINGS, root / "cohort" / "manifest.csv", folders, root / "evaluate")
    return root / "evaluate"


def test_the_table_reads_the_curve_of_metrics_csv(out: Path) -> None:
    table, metrics = (
        read_table(out / "label_efficiency.csv", LABEL_EFFICIENCY),
        read_table(out / "metrics.csv", METRICS),
    )
    assert set(table["arm"]) == {"dino-linear"}
    assert set(table["reference"]) == {"scratch-finetune"}
    assert len(table) == 9  # three fractions; two seeds and their mean
    macro = metrics[(metrics["label"] == "macro") & (metrics["metric"] == "auroc") & metrics["seed"].isna()]
    curve = macro[macro["arm"] == "scratch-finetune"].sort_values("fraction")["value"].to_numpy(float)
    for fraction in (0.1, 0.4, 1.0):
        row = one(table[table["seed"].isna()], fraction=fraction)
        assert row["value"] == one(macro, arm="dino-linear", fraction=fraction)["value"]
        numbers = np.array([round(fraction * 45) for fraction in (0.1, 0.4, 1.0)])
        expected = as_patients(log_patients_needed(numbers, curve[:, None], np.array([row["value"]]))[0], numbers)
        assert (row["reference_patients"], row["reference_is"]) == pytest.approx(expected)
        assert row["n_train_patients"] == round(fraction * 45)
        assert row["low"] <= row["reference_patients"] <= row["high"]
        assert row["n_patients"] == 30
        assert row["n_resamples"] == 100
    assert notice_of((out / "patients_needed.svg").read_text()) == ""


def test_power_is_that_of_the_interval_in_comparison_csv(out: Path) -> None:
    """Under a normal distribution an interval is the estimate plus and minus a quantile of standard errors."""
    table, paired = read_table(out / "power.csv", POWER), read_table(out / "comparison.csv", COMPARISON)
    row = one(table[table["seed"].isna()], arm="dino-linear", reference="scratch-finetune", fraction=1.0)
    paired = paired[(paired["label"] == "macro") & (paired["metric"] == "auroc") & paired["seed"].isna()]
    pair = one(paired, arm="dino-linear", reference="scratch-finetune", fraction=1.0)
    error = math.hypot(row["standard_error"], row["seed_error"])
    assert error == pytest.approx((pair["high"] - pair["low"]) / 2 / norm.ppf(0.975), rel=0.25)
    assert row["seed_error"] > 0
    assert row["comparisons"] == 1
    needed = row["n_patients"] * row["standard_error"] ** 2
    needed /= (0.02 / (norm.ppf(0.975) + norm.ppf(0.8))) ** 2 - row["seed_error"] ** 2
    if needed < 0:
        assert pd.isna(row["n_needed"])
    else:
        assert row["n_needed"] == pytest.approx(needed + norm.ppf(0.975) ** 2 / 2)
    alone = table[table["seed"].notna()]
    assert (alone["seed_error"] == 0).all()
    assert (alone["n_needed"] > 0).all()
    against = table[table["reference"] == "clinical"]
    assert (against["comparisons"] == 2).all()
    known = against.dropna()
    assert (known["n_needed_adjusted"] > known["n_needed"]).all()


def test_patients_for_power_are_those_of_the_z_test() -> None:
    """Textbook: d = 0.5 standard deviations, 80 %, 5 %: 31.4 pairs by the normal quantiles, 33.4 by Student's."""
    assert patients_for_power(100, 0.1, 0.5, 0.8, 0.05) == pytest.approx(33.3, abs=0.1)
    assert power_of(0.5 / math.sqrt(31.4), 0.25, 0.05) == pytest.approx(0.8, abs=0.002)
    assert patients_for_power(100, 0.1, 0.02, 0.8, 0.05, constant_error=0.01) == math.inf
    assert math.isnan(patients_for_power(100, math.nan, 0.02, 0.8, 0.05))


def test_without_a_supervised_curve_there_is_a_sentence_and_an_empty_table(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    folders = [write_arm(tmp_path, tmp_path, "dino-linear", fraction) for fraction in (0.3, 1.0)]
    folders.append(write_arm(tmp_path, tmp_path, "scratch-finetune"))
    evaluate(SETTINGS, tmp_path / "manifest.csv", folders, tmp_path)
    assert read_table(tmp_path / "label_efficiency.csv", LABEL_EFFICIENCY).empty
    notice = notice_of((tmp_path / "patients_needed.svg").read_text())
    assert "takes a supervised arm with two or more fractions" in notice


@pytest.mark.usefixtures("no_figures")
def test_bca_moves_the_interval_and_not_the_number(out: Path, tmp_path: Path) -> None:
    root = out.parent
    folders = [path.parent for path in sorted(root.glob("classify/*/*/*/fold0-seed0/predictions.csv"))]
    found = []
    for interval in ("percentile", "bca"):
        settings = EvaluateSettings(resamples=300, interval=interval)
        evaluate(settings, root / "cohort" / "manifest.csv", folders, tmp_path / interval)
        found.append(read_table(tmp_path / interval / "label_efficiency.csv", LABEL_EFFICIENCY))
    pd.testing.assert_series_equal(found[0]["reference_patients"], found[1]["reference_patients"])
    moved = np.log(found[0]["high"].astype(float)) - np.log(found[1]["high"].astype(float))
    assert moved.abs().max() < 0.5
    assert (found[0][["low", "high"]] != found[1][["low", "high"]]).any(axis=None)
