"""Clinical baseline: boosted trees on thickness, acuity, slice, visit and trial, without images.

An arm that does not beat it has learned little from its images. In OLIVES it is strong: central subfield thickness
nearly is the label DRT/ME.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from octdino import made_by
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import fraction_patients
from octdino.data.predictions import write_predictions
from octdino.data.visit_times import visit_time
from octdino.errors import UserError
from octdino.stats.calibration import calibration_of
from octdino.stats.thresholds import choose_threshold

log = logging.getLogger("octdino.classify")

FEATURES = ("cst", "bcva", "slice", "visit_order", "trial")
COLUMNS = ("cst", "bcva", "slice", "visit", "trial")  # of the manifest, which they are made of
# Fixed and slow: on OLIVES (five folds) 40 to 160 trees of such sizes differ by 0.01 in AUROC or less, and a choice
# on a dozen validation patients is worse than none. Leaves are a share of the scans, because those of one volume agree.
SETTINGS = {"learning_rate": 0.06, "max_iter": 60, "max_leaf_nodes": 8, "l2_regularization": 1.0}
SMALLEST_LEAF = 0.05  # share of the training scans
MOST_TRIALS = 200  # scikit-learn takes at most 255 categories


def clinical_baseline(store: Path, fraction: float, fold: int, seed: int, out: Path) -> None:
    """Train boosted trees on clinical values; write predictions.csv and classifier.json to `out`.

    One model per label, or one over all labels where they exclude each other. Missing values are a branch of their
    own, so no scan is left out. Thresholds (by Youden's index) are chosen on validation patients, as the arms choose
    theirs.

    Args:
        store: scans.h5, which says whether labels exclude each other; manifest.csv and splits.csv stand beside it.
        fraction: share of the labeled training patients that may be seen.
        fold, seed: which patients are test; the randomness.

    Raises:
        UserError: the cohort has no labels, or no labeled scan to train on or to predict.
    """
    cohort = read_cohort(store)
    labels, truth = cohort.labels, cohort.truth
    if not labels:
        raise UserError(f"{store.with_name('manifest.csv')}: no label column; there is nothing to classify")
    table = cohort.manifest.assign(split=cohort.split_of(fold))
    features = clinical_features(table)
    chosen = table["patient"].isin(fraction_patients(cohort.splits, fold, fraction)).to_numpy(bool)
    train = cohort.labeled & chosen & (table["split"] == "train").to_numpy(bool)
    rows = cohort.labeled & (table["split"] != "train").to_numpy(bool)
    if not train.any() or not rows.any():
        what = "train on" if rows.any() else "predict"
        raise UserError(f"{store.with_name('splits.csv')}: fold {fold} has no labeled scan to {what}")
    features = features.loc[:, features[train].notna().any()]
    if features.columns.empty:
        log.warning(
            "%s: no training scan has a value of %s: the clinical baseline predicts the share of each label",
            store.with_name("manifest.csv"), ", ".join(COLUMNS),
        )  # fmt: skip
    val, exclusive = (table["split"][rows] == "val").to_numpy(bool), cohort.exclusive
    fit = _fit_classes if exclusive else _fit_labels
    p = fit(features[train], truth[train], features[rows], seed)
    thresholds = {
        label: choose_threshold(truth[rows][val, k], p[val, k], "youden") for k, label in enumerate(labels)
    }  # fmt: skip
    n_patients = table["patient"][rows][val].nunique()
    calibration = calibration_of(truth[rows][val], p[val], exclusive, patients=n_patients)
    metadata = {
        "arm": "clinical", "backbone": "none", "fraction": fraction, "fold": fold, "seed": seed,
        "thresholds": thresholds, "thresholds_from": "val", "calibration": calibration,
        "exclusive": exclusive, "features": list(features.columns),
        "settings": {**SETTINGS, "smallest_leaf": SMALLEST_LEAF, "threshold": "youden"},
        "n_train_patients": int(table["patient"][train].nunique()), "n_train_scans": int(train.sum()),
        "octdino": made_by("classify"),
    }  # fmt: skip
    write_predictions(out, table[rows], labels, p, metadata)
    log.info("clinical baseline on %s, %d training scans", ", ".join(features.columns) or "no values", train.sum())


def clinical_features(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return features per scan, NaN where unknown; columns of FEATURES without a single value are left out.

    `visit_order` counts an eye's visits from 0; `trial` is a category's number, left out where every scan has its own.
    """
    found = manifest[["cst", "bcva", "slice"]].astype("Float64").astype(np.float64)
    found["visit_order"] = visit_order(manifest)
    codes, names = pd.factorize(manifest["trial"].where(manifest["trial"].fillna("") != ""), sort=True)
    found["trial"] = np.where(codes < 0, np.nan, codes) if 0 < len(names) <= MOST_TRIALS else np.nan
    return found[[name for name in FEATURES if found[name].notna().any()]]


def visit_order(manifest: pd.DataFrame) -> np.ndarray:
    """Return the position of each scan's visit among those of its eye by time, from 0; NaN where it is unknown.

    The time is that in the visit's name, see `octdino.data.visit_times`. The order is unknown where a scan has no
    visit, and for all visits of an eye of which one has no time, or whose times are on several scales.
    """
    eye = manifest["eye"].where(manifest["eye"].fillna("") != "", manifest["patient"])
    visits = pd.DataFrame({"eye": eye, "visit": manifest["visit"]})
    known = visits[visits["visit"].fillna("") != ""].drop_duplicates()
    times = [visit_time(str(name)) for name in known["visit"]]
    known["time"] = [time.value if time else np.nan for time in times]
    known["scale"] = [time.scale if time else None for time in times]
    known = known.sort_values(["eye", "time", "visit"])
    by_eye = known.groupby("eye")
    timeless = by_eye["time"].transform("count") < by_eye["visit"].transform("count")
    mixed = (timeless | (by_eye["scale"].transform("nunique") > 1)) & (by_eye["visit"].transform("count") > 1)
    known["order"] = by_eye.cumcount().where(~mixed)
    if mixed.any():
        unknown = known[mixed]
        example = unknown["visit"][unknown["eye"] == unknown["eye"].iloc[0]]
        log.warning(
            "clinical baseline: the order of visits is unknown for %d eye(s), whose visits have no times that can be "
            "compared, such as %s; expected weeks, days, dates (2019-03-01) or numbers for all visits of an eye",
            unknown["eye"].nunique(), ", ".join(map(repr, example[:3])),
        )  # fmt: skip
    order: np.ndarray = visits.merge(known, on=["eye", "visit"], how="left")["order"].to_numpy(np.float64)
    return order


def _fit_labels(train: pd.DataFrame, truth: np.ndarray, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Return probabilities [N, L] for `rows`: one model per label, trained on the scans where it is known."""
    found = []
    for values in truth.T:
        known = ~np.isnan(values)
        classes, p = _fit(train[known], values[known] == 1, rows, seed)
        found.append(p[:, classes.index(True)] if True in classes else np.full(len(rows), 0.5 if not classes else 0.0))
    return np.stack(found, axis=1)


def _fit_classes(train: pd.DataFrame, truth: np.ndarray, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Return probabilities [N, L] for `rows` of exclusive labels, which sum to 1; 0 without a training scan."""
    classes, p = _fit(train, truth.argmax(1), rows, seed)
    found = np.zeros((len(rows), truth.shape[1]))
    found[:, classes] = p
    return found


def _fit(train: pd.DataFrame, y: np.ndarray, rows: pd.DataFrame, seed: int) -> tuple[list[Any], np.ndarray]:
    """Return the classes of `y` [M], ascending, and their probabilities for `rows`.

    They are constant shares where there is one class, or no feature that has a value in `train`.
    """
    train = train.loc[:, train.notna().any()]  # binning fails on a column without a value
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2 or train.columns.empty:
        return classes.tolist(), np.tile(counts / max(len(y), 1), (len(rows), 1))
    model = HistGradientBoostingClassifier(
        **SETTINGS,
        min_samples_leaf=max(5, round(SMALLEST_LEAF * len(y))),
        early_stopping=False,
        categorical_features=[name == "trial" for name in train.columns],
        random_state=seed,
    )
    model.fit(train.to_numpy(), y)
    return model.classes_.tolist(), model.predict_proba(rows[train.columns].to_numpy())
