"""The control without a picture: what do thickness, acuity, slice, visit and trial alone say about the biomarkers?

An arm that does not beat this has learned little from its images. In OLIVES it is strong: central subfield thickness
nearly is the label DRT/ME.
"""

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from octdino import __version__
from octdino.errors import UserError
from octdino.predictions import write_predictions
from octdino.tables import MANIFEST, SPLITS, fraction_patients, label_matrix, labels_of, read_table
from octdino.thresholds import choose_threshold

log = logging.getLogger("octdino.classify")

FEATURES = ("cst", "bcva", "slice", "visit_order", "trial")
ITERATIONS = (5, 10, 20, 40, 80, 160)  # trees; which of them is chosen on validation patients
SETTINGS = {"learning_rate": 0.06, "max_leaf_nodes": 8, "min_samples_leaf": 10, "l2_regularization": 1.0}
MOST_TRIALS = 200  # scikit-learn takes at most 255 categories


def clinical_control(manifest: Path, splits: Path, fraction: float, fold: int, seed: int, out: Path) -> None:
    """Train boosted trees on clinical values, a model a label; write predictions.csv and classifier.json to `out`.

    Missing values are a branch of their own, so no scan is left out. The number of trees (by macro AUROC) and the
    thresholds (by Youden's index) are chosen on validation patients, as the arms choose theirs.

    Args:
        manifest, splits: the cohort's tables.
        fraction: share of the labelled training patients that may be seen.
        fold, seed: which patients are test; the randomness.

    Raises:
        UserError: the cohort has no labels, or no labelled scan to train on or to predict.
    """
    table, sides = read_table(manifest, MANIFEST), read_table(splits, SPLITS)
    labels = labels_of(table)
    if not labels:
        raise UserError(f"{manifest}: no label column; there is nothing to classify")
    sides = sides[sides["fold"] == fold]
    table["split"] = table["patient"].map(sides.set_index("patient")["split"]).astype("string")
    features = clinical_features(table)
    labelled = table[labels].notna().any(axis=1).to_numpy(bool)
    chosen = table["patient"].isin(fraction_patients(sides, fold, fraction)).to_numpy(bool)
    train = labelled & chosen & (table["split"] == "train").to_numpy(bool, na_value=False)
    rows = labelled & table["split"].isin(["val", "test"]).to_numpy(bool)
    if not train.any() or not rows.any():
        raise UserError(f"{splits}: fold {fold} has no labelled scan to {'train on' if rows.any() else 'predict'}")
    truth, val = label_matrix(table, labels), (table["split"][rows] == "val").to_numpy(bool)
    staged = np.stack(
        [_staged(features[train], truth[train, k], features[rows], seed) for k in range(len(labels))], axis=2
    )  # [iterations, N, L]
    best = _best_iterations(staged[:, val], truth[rows][val])
    p = staged[best]
    thresholds = {
        label: choose_threshold(truth[rows][val, k], p[val, k], "youden") for k, label in enumerate(labels)
    }  # fmt: skip
    metadata = {
        "arm": "clinical", "backbone": "none", "fraction": fraction, "fold": fold, "seed": seed,
        "thresholds": thresholds, "thresholds_from": "val", "features": list(features.columns),
        "iterations": ITERATIONS[best], "settings": {**SETTINGS, "threshold": "youden"},
        "n_train_patients": int(table["patient"][train].nunique()), "n_train_scans": int(train.sum()),
        "octdino": __version__,
    }  # fmt: skip
    write_predictions(out, table[rows], labels, p, metadata)
    log.info("clinical control on %s: %d trees a label", ", ".join(features.columns) or "nothing", ITERATIONS[best])


def clinical_features(manifest: pd.DataFrame) -> pd.DataFrame:
    """Numbers a scan, NaN where unknown; columns of FEATURES without a single value are left out.

    `visit_order` counts an eye's visits from 0; `trial` is a category's number, left out where every scan has its own.
    """
    found = manifest[["cst", "bcva", "slice"]].astype("Float64").astype(np.float64)
    found["visit_order"] = visit_order(manifest)
    codes, names = pd.factorize(manifest["trial"].where(manifest["trial"].fillna("") != ""), sort=True)
    found["trial"] = np.where(codes < 0, np.nan, codes) if 0 < len(names) <= MOST_TRIALS else np.nan
    return found[[name for name in FEATURES if found[name].notna().any()]]


def visit_order(manifest: pd.DataFrame) -> np.ndarray:
    """Position of each scan's visit among the visits of its eye, from 0, by the number in the name (W0, W52, V7)."""
    eye = manifest["eye"].where(manifest["eye"].fillna("") != "", manifest["patient"])
    visits = pd.DataFrame({"eye": eye, "visit": manifest["visit"]})
    known = visits[visits["visit"].fillna("") != ""].drop_duplicates()
    number = known["visit"].map(lambda name: float(found[0]) if (found := re.search(r"\d+", name)) else np.inf)
    known = known.assign(number=number).sort_values(["eye", "number", "visit"])
    known["order"] = known.groupby("eye").cumcount()
    order: np.ndarray = visits.merge(known, on=["eye", "visit"], how="left")["order"].to_numpy(np.float64)
    return order


def _staged(train: pd.DataFrame, truth: np.ndarray, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Probabilities after each number of ITERATIONS, [iterations, N]; the prevalence where nothing can be learned."""
    known = ~np.isnan(truth)
    positive = truth[known] == 1
    prevalence = positive.mean() if known.any() else 0.5
    if not 0 < prevalence < 1 or train.columns.empty:
        return np.full((len(ITERATIONS), len(rows)), prevalence)
    kinds = [name == "trial" for name in train.columns]
    model = HistGradientBoostingClassifier(
        max_iter=ITERATIONS[-1], early_stopping=False, categorical_features=kinds, random_state=seed, **SETTINGS
    )
    model.fit(train[known].to_numpy(), positive)
    stages = [p[:, 1] for p in model.staged_predict_proba(rows.to_numpy())]
    return np.stack([stages[min(count, len(stages)) - 1] for count in ITERATIONS])


def _best_iterations(staged: np.ndarray, truth: np.ndarray) -> int:
    """Index into ITERATIONS with the best macro AUROC; of equally good ones the fewest trees.

    Args:
        staged: [iterations, N, L]; truth: [N, L].
    """
    known = ~np.isnan(truth)
    both = [k for k in range(truth.shape[1]) if len(np.unique(truth[known[:, k], k])) == 2]
    if not both:
        return 0
    scores = [[roc_auc_score(truth[known[:, k], k], p[known[:, k], k]) for k in both] for p in staged]
    return int(np.argmax(np.mean(scores, axis=1)))
