"""metrics.csv once more, from predictions.csv alone, with scikit-learn: nothing of octdino's own arithmetic is used.

Thresholds and temperatures are chosen anew on the validation rows of the same file.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from octdino.config import EvaluateSettings
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import METRICS
from octdino.evaluate import evaluate
from tests.results import drawing, write_arm, write_cohort

LABELS = ("IRF", "DRT/ME", "FAVF")  # VMT has too few positive patients
ARMS = ("scratch-finetune", "dino-linear", "clinical")


@pytest.fixture(scope="module", params=["mean", "max"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("results")
    write_cohort(root)
    folders = [write_arm(root / "classify", root, arm, 0.3) for arm in ARMS]
    with drawing():
        evaluate(EvaluateSettings(resamples=100, pooling=request.param), root / "manifest.csv", folders, root)
    return root, request.param


def logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    found: np.ndarray = np.log(p / (1 - p))
    return found


def temperature_of(val: pd.DataFrame) -> float:
    """Logistic regression without intercept on all known cells at once: its slope is the inverse temperature."""
    labels = [name.removeprefix("prob:") for name in val.columns if name.startswith("prob:")]
    cells = pd.concat([val[[label, f"prob:{label}"]].set_axis(["y", "p"], axis=1) for label in labels]).dropna()
    model = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-13)
    return float(1 / model.fit(logit(cells["p"].to_numpy())[:, None], cells["y"]).coef_[0, 0])


def calibration(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    share, mean = calibration_curve(y, p, n_bins=10, strategy="quantile")
    edges = np.percentile(p, np.linspace(0, 100, 11))
    counts = np.bincount(np.searchsorted(edges[1:-1], p))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-13).fit(logit(p)[:, None], y)
    return {
        "brier": brier_score_loss(y, p),
        "ece": (np.abs(share - mean) * counts[counts > 0]).sum() / len(y),
        "calibration_slope": model.coef_[0, 0],
        "calibration_intercept": brentq(lambda a: expit(logit(p) + a).mean() - y.mean(), -20, 20, xtol=1e-13),
    }


def youden(y: np.ndarray, p: np.ndarray) -> float:
    """The scores at and above the best threshold on the curve; of equally good ones the most sensitive."""
    off, on, at = roc_curve(y, p, drop_intermediate=False)
    best = np.flatnonzero(np.isclose(on - off, (on - off).max(), atol=1e-12))[-1]
    return below(p, at[best])


def fixed(y: np.ndarray, p: np.ndarray, side: str) -> float:
    off, on, at = roc_curve(y, p, drop_intermediate=False)
    enough = (1 - off >= 0.9 - 1e-12) if side == "spec" else (on >= 0.9 - 1e-12)
    return below(p, at[np.flatnonzero(enough)[-1 if side == "spec" else 0]])


def below(p: np.ndarray, at: float) -> float:
    """Half-way to the next lower score."""
    lower = p[p < at]
    return float((at + lower.max()) / 2 if len(lower) else at)


def of_label(table: pd.DataFrame, label: str, how: str, temperature: float) -> dict[str, float]:
    known = table[table[label].notna()]
    val, test = (known[known["split"] == split] for split in ("val", "test"))
    (v, q), (y, p) = ((part[label].to_numpy(int), part[f"prob:{label}"].to_numpy(float)) for part in (val, test))
    positive = p >= youden(v, q)
    found = {
        "auroc": roc_auc_score(y, p), "average_precision": average_precision_score(y, p), "prevalence": y.mean(),
        "f1": f1_score(y, positive), "balanced_accuracy": balanced_accuracy_score(y, positive),
    }  # fmt: skip
    for side in ("spec", "sens"):
        called = p >= fixed(v, q, side)
        found[f"sensitivity@{side}90"] = recall_score(y, called)
        found[f"specificity@{side}90"] = recall_score(1 - y, ~called)
    found |= calibration(y, p)
    cooled = calibration(y, expit(logit(p) / temperature))
    found |= {f"{name}_calibrated": value for name, value in cooled.items()}
    people = test.assign(y=y, p=p).groupby("patient").agg(y=("y", "max"), p=("p", how))
    if min((people["y"] == 0).sum(), (people["y"] == 1).sum()) >= EvaluateSettings().min_test_patients:
        found["patient_auroc"] = roc_auc_score(people["y"], people["p"])
        found["patient_average_precision"] = average_precision_score(people["y"], people["p"])
        found["patient_prevalence"] = people["y"].mean()
    return found


@pytest.mark.parametrize("arm", ARMS)
def test_metrics_are_those_of_predictions_alone(arm: str, done: tuple[Path, str]) -> None:
    root, how = done
    backbone = "none" if arm == "clinical" else "resnet18"
    table = pd.read_csv(
        root / "classify" / arm / backbone / "f0.3" / "fold0-seed0" / "predictions.csv", dtype={"patient": str}
    )
    temperature = temperature_of(table[table["split"] == "val"])
    expected = {label: of_label(table, label, how, temperature) for label in LABELS}
    written = read_table(root / "metrics.csv", METRICS)
    written = written[written["arm"] == arm].set_index(["label", "metric"])["value"]
    for label, values in expected.items():
        assert set(written[label].dropna().index) == set(values)
        for metric, value in values.items():
            assert written[label, metric] == pytest.approx(value, abs=1e-9 if "calibrated" not in metric else 1e-7)
    assert any("patient_auroc" in values for values in expected.values())
    test = table[table["split"] == "test"]
    scans = {label: test[label].sum() for label in LABELS}
    patients = {label: test.loc[test[label] == 1, "patient"].nunique() for label in LABELS}
    for metric in expected["IRF"]:
        having = [label for label in LABELS if metric in expected[label]]
        values = [expected[label][metric] for label in having]
        weights = [(patients if metric.startswith("patient") else scans)[label] for label in having]
        tolerance = 1e-9 if "calibrated" not in metric else 1e-7
        assert written["macro", metric] == pytest.approx(np.mean(values), abs=tolerance)
        assert written["weighted", metric] == pytest.approx(np.average(values, weights=weights), abs=tolerance)


def test_weighted_is_scikit_learns_word_for_it(tmp_path: Path) -> None:
    """On scans where all labels are known, `average="weighted"` gives the same."""
    write_cohort(tmp_path, seed=1)
    folder = write_arm(tmp_path, tmp_path, "dino-linear")
    evaluate(EvaluateSettings(resamples=100), tmp_path / "manifest.csv", [folder], tmp_path)
    table = pd.read_csv(folder / "predictions.csv")
    test = table[table["split"] == "test"]
    assert test[list(LABELS)].notna().all(axis=None), "the fixture's one missing label must be elsewhere"
    y, p = test[list(LABELS)].to_numpy(int), test[[f"prob:{label}" for label in LABELS]].to_numpy()
    written = read_table(tmp_path / "metrics.csv", METRICS)
    written = written[written["label"] == "weighted"].set_index("metric")["value"]
    assert written["auroc"] == pytest.approx(roc_auc_score(y, p, average="weighted"), abs=1e-9)
    assert written["average_precision"] == pytest.approx(average_precision_score(y, p, average="weighted"), abs=1e-9)
