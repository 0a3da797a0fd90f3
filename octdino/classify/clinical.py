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

from octdino import made_by
from octdino.calibration import calibration_of
from octdino.cohort_reader import read_cohort
from octdino.errors import UserError
from octdino.predictions import write_predictions
from octdino.tables import fraction_patients
from octdino.thresholds import choose_threshold

log = logging.getLogger("octdino.classify")

FEATURES = ("cst", "bcva", "slice", "visit_order", "trial")
# Fixed and slow: on OLIVES (five folds) 40 to 160 trees of such sizes differ by 0.01 in AUROC or less, and a choice
# on a dozen validation patients is worse than none. Leaves are a share of the scans, because those of one volume agree.
SETTINGS = {"learning_rate": 0.06, "max_iter": 60, "max_leaf_nodes": 8, "l2_regularization": 1.0}
SMALLEST_LEAF = 0.05  # share of the training scans
MOST_TRIALS = 200  # scikit-learn takes at most 255 categories


def clinical_control(store: Path, fraction: float, fold: int, seed: int, out: Path) -> None:
    """Train boosted trees on clinical values, a model a label; write predictions.csv and classifier.json to `out`.

    Missing values are a branch of their own, so no scan is left out. Thresholds (by Youden's index) are chosen on
    validation patients, as the arms choose theirs.

    Args:
        store: scans.h5; manifest.csv and splits.csv stand beside it.
        fraction: share of the labelled training patients that may be seen.
        fold, seed: which patients are test; the randomness.

    Raises:
        UserError: the cohort has no labels, or no labelled scan to train on or to predict.
    """
    cohort = read_cohort(store)
    labels, truth = cohort.labels, cohort.truth
    if not labels:
        raise UserError(f"{store.with_name('manifest.csv')}: no label column; there is nothing to classify")
    table = cohort.manifest.assign(split=cohort.split_of(fold))
    features = clinical_features(table)
    chosen = table["patient"].isin(fraction_patients(cohort.splits, fold, fraction)).to_numpy(bool)
    train = cohort.labelled & chosen & (table["split"] == "train").to_numpy(bool)
    rows = cohort.labelled & (table["split"] != "train").to_numpy(bool)
    if not train.any() or not rows.any():
        what = "train on" if rows.any() else "predict"
        raise UserError(f"{store.with_name('splits.csv')}: fold {fold} has no labelled scan to {what}")
    val = (table["split"][rows] == "val").to_numpy(bool)
    p = np.stack([_fit(features[train], y, features[rows], seed) for y in truth[train].T], axis=1)
    thresholds = {
        label: choose_threshold(truth[rows][val, k], p[val, k], "youden") for k, label in enumerate(labels)
    }  # fmt: skip
    who = table["patient"][rows][val].nunique()
    calibration = calibration_of(truth[rows][val], p[val], exclusive=False, patients=who)
    metadata = {
        "arm": "clinical", "backbone": "none", "fraction": fraction, "fold": fold, "seed": seed,
        "thresholds": thresholds, "thresholds_from": "val", "calibration": calibration,
        "features": list(features.columns),
        "settings": {**SETTINGS, "smallest_leaf": SMALLEST_LEAF, "threshold": "youden"},
        "n_train_patients": int(table["patient"][train].nunique()), "n_train_scans": int(train.sum()),
        "octdino": made_by("classify"),
    }  # fmt: skip
    write_predictions(out, table[rows], labels, p, metadata)
    log.info("clinical control on %s, %d training scans", ", ".join(features.columns) or "nothing", train.sum())


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


def _fit(train: pd.DataFrame, truth: np.ndarray, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Probabilities [N] of one label for `rows`; the prevalence where nothing can be learned."""
    known = ~np.isnan(truth)
    positive = truth[known] == 1
    prevalence = positive.mean() if known.any() else 0.5
    if not 0 < prevalence < 1 or train.columns.empty:
        return np.full(len(rows), prevalence)
    model = HistGradientBoostingClassifier(
        **SETTINGS,
        min_samples_leaf=max(5, round(SMALLEST_LEAF * len(positive))),
        early_stopping=False,
        categorical_features=[name == "trial" for name in train.columns],
        random_state=seed,
    )
    model.fit(train[known].to_numpy(), positive)
    p: np.ndarray = model.predict_proba(rows.to_numpy())[:, 1]
    return p
