"""The typed columns of every table: one place that names them, reads them and writes them.

Columns that a schema does not name are labels (manifest) or free numbers (history).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.errors import UserError
from octdino.files import replacing as replacing


@dataclass(frozen=True)
class Column:
    """One column: its name, its pandas type and what it means."""

    name: str
    dtype: str
    meaning: str


MANIFEST = (
    Column("scan_id", "string", "unique; the cohort's name and the scan's path or number, safe in file names"),
    Column("path", "string", "below the cohort's root, with forward slashes"),
    Column("cohort", "string", "which body of images"),
    Column("patient", "string", "who; images without patients are their own patient"),
    Column("group", "string", "split group: the patient, joined with every patient that shares identical pixels"),
    Column("eye", "string", "which eye, unique over the cohort; empty if unknown"),
    Column("visit", "string", "which visit of the eye; empty if unknown"),
    Column("slice", "Int64", "1-based position in the volume; empty if unknown"),
    Column("laterality", "string", "OD, OS or empty"),
    Column("trial", "string", "site, trial or device; empty if unknown"),
    Column("split", "string", "train, val or test in fold 0"),
    Column("bcva", "Float64", "best corrected visual acuity, ETDRS letters"),
    Column("cst", "Float64", "central subfield thickness, µm"),
    Column("mask", "string", "lesion mask below the cohort's root; empty if there is none"),
    Column("flags", "string", "what is odd but kept, separated by spaces"),
)
QUARANTINE = (
    Column("path", "string", "as the table names it"),
    Column("row", "Int64", "row of the table, 2 is the first below the header; empty if there is no table"),
    Column("reason", "string", "a code of REASONS"),
    Column("detail", "string", "what was found and what is expected"),
)
SPLITS = (
    Column("fold", "Int64", "which patients are test"),
    Column("patient", "string", "who"),
    Column("group", "string", "split group; never on two sides"),
    Column("split", "string", "train, val or test"),
    Column("rank", "Int64", "labelled training groups join the fractions in this order from 0; empty for others"),
)
PREDICTIONS = (
    Column("scan_id", "string", "as in the manifest"),
    Column("patient", "string", "as in the manifest"),
    Column("split", "string", "val or test"),
)
METRICS = (
    Column("arm", "string", "{init}-{mode}, or clinical"),
    Column("backbone", "string", "none for clinical"),
    Column("fraction", "Float64", "share of labelled training patients"),
    Column("fold", "string", "fold, or pooled"),
    Column("seed", "Int64", "empty: the mean over seeds, where there are several"),
    Column(
        "label",
        "string",
        "a label; macro: the mean over the evaluable labels; weighted: by their positive scans (or patients)",
    ),
    Column(
        "metric",
        "string",
        "auroc, average_precision (prevalence is its floor), f1, balanced_accuracy; sensitivity@specX and "
        "specificity@specX at the threshold that reached X % specificity on validation patients, @sensX likewise; "
        "brier, ece, calibration_slope, calibration_intercept, then _calibrated at val's temperature; "
        "patient_: a patient's scans as one; accuracy of exclusive labels, at macro",
    ),
    Column("value", "Float64", "empty where not evaluable"),
    Column("low", "Float64", "lower end of the interval over patients"),
    Column("high", "Float64", "upper end"),
    Column("n_patients", "Int64", "test patients with this label known"),
    Column("n_scans", "Int64", "test scans with this label known"),
    Column("n_positive", "Int64", "positive test scans"),
    Column("n_positive_patients", "Int64", "test patients with a positive scan"),
    Column("tier", "string", "primary, exploratory or not evaluable; empty for macro"),
    Column("n_resamples", "Int64", "resamples of patients in which the value exists; the interval is theirs"),
)
COMPARISON = (
    Column("arm", "string", "{init}-{mode}"),
    Column("reference", "string", "the arm that it is compared with: evaluate.reference, or clinical"),
    Column("backbone", "string", ""),
    Column("fraction", "Float64", ""),
    Column("fold", "string", "fold, or pooled"),
    Column("seed", "Int64", "empty: the mean over seeds, where there are several"),
    Column("label", "string", "as in metrics.csv"),
    Column("metric", "string", "as in metrics.csv, those of which more (or less) is better"),
    Column("difference", "Float64", "arm minus reference on the same test patients"),
    Column("low", "Float64", "lower end of the paired interval"),
    Column("high", "Float64", "upper end"),
    Column("p", "Float64", "two-sided, from the same resamples"),
    Column("p_adjusted", "Float64", "Holm over the arms with the same reference, label, metric, fraction and seed"),
    Column("n_patients", "Int64", "test patients with this label known"),
    Column("n_scans", "Int64", "test scans with this label known"),
    Column("n_resamples", "Int64", "resamples of patients in which the difference exists"),
)
FINDINGS = (
    Column("check", "string", "patient, eye, volume, copy, exposure, statistics or threshold"),
    Column("where", "string", "fold, or folder of the run"),
    Column("count", "Int64", "how many there are"),
    Column("detail", "string", "the first of them, or the worst"),
    Column("acknowledged", "Int64", "1: named in audit.acknowledged, 0: not"),
)
SUBGROUPS = (
    Column("arm", "string", "{init}-{mode}, or clinical"),
    Column("backbone", "string", "none for clinical"),
    Column("fraction", "Float64", "the largest"),
    Column("fold", "string", "fold, or pooled"),
    Column("seed", "Int64", "empty: the mean over seeds, where there are several"),
    Column("subgroup", "string", "all, trial, eye side, CST, BCVA, position in the volume, or quality of the picture"),
    Column("group", "string", "which part of the test scans"),
    Column("label", "string", "a label, or macro: the mean over the labels evaluable in all groups but small ones"),
    Column("metric", "string", "auroc; accuracy of exclusive labels, at macro"),
    Column("value", "Float64", "empty where not evaluable"),
    Column("low", "Float64", "lower end of the interval over patients"),
    Column("high", "Float64", "upper end"),
    Column("n_patients", "Int64", "test patients in the group, with this label known"),
    Column("n_scans", "Int64", "their scans"),
    Column("n_positive", "Int64", "positive scans; empty for macro"),
    Column("n_positive_patients", "Int64", "their patients; empty for macro"),
    Column("n_labels", "Int64", "labels that the value is a mean over"),
    Column("small", "Int64", "1: fewer patients than evaluate.small_group"),
    Column("n_resamples", "Int64", "resamples of patients in which the value exists"),
)
EMBEDDING = (
    Column("scan_id", "string", "as in the manifest"),
    Column("x", "Float64", "place in the plane; near scans have near features"),
    Column("y", "Float64", ""),
    Column("how", "string", "how features became places"),
)
OVERLAP = (
    Column("init", "string", "whose weights: scratch, imagenet or a pretraining method"),
    Column("backbone", "string", ""),
    Column("arm", "string", "whose classifier made the map; empty: the map needs none"),
    Column("label", "string", "a label, or macro: the mean over the labels that some scan shows"),
    Column("map", "string", "attention, activation, cam, gradcam or projection"),
    Column("metric", "string", "iou@M of the mask that holds M % of the map, pointing, pixel_auroc"),
    Column("value", "Float64", "mean over the scans with a lesion of the label"),
    Column("low", "Float64", "lower end of the interval over patients; empty with a single patient"),
    Column("high", "Float64", "upper end"),
    Column("chance", "Float64", "what a map reaches that is the same everywhere, cut at random"),
    Column("n_scans", "Int64", "scans with a lesion of the label"),
    Column("n_patients", "Int64", "their patients"),
)
JACCARD = (
    Column("init", "string", "whose weights"),
    Column("backbone", "string", ""),
    Column("map", "string", "attention or activation"),
    Column("protocol", "string", "paper, largest, union, largest_void or union_void"),
    Column("blobs", "string", "kept, or removed: small parts of the masks"),
    Column("value", "Float64", "mean over images"),
    Column("low", "Float64", "lower end of the interval over patients; images without patients are their own"),
    Column("high", "Float64", "upper end"),
    Column("n_images", "Int64", "images with an object"),
    Column("n_patients", "Int64", "their patients"),
    Column("n_objects", "Int64", "their objects; one an image for largest and union"),
)
JACCARD_IMAGES = (
    Column("init", "string", "whose weights"),
    Column("backbone", "string", ""),
    Column("scan_id", "string", "as in the manifest"),
    Column("map", "string", "attention or activation"),
    Column("protocol", "string", "as in jaccard.csv"),
    Column("blobs", "string", "as in jaccard.csv"),
    Column("value", "Float64", ""),
    Column("n_objects", "Int64", "as in jaccard.csv"),
)
RETRIEVAL = (
    Column("init", "string", "whose weights"),
    Column("backbone", "string", ""),
    Column("label", "string", "a label, or macro: the mean over labels; empty for same_patient"),
    Column("metric", "string", "precision@k among other patients' scans; same_patient@k: share of the patient's own"),
    Column("value", "Float64", "mean over the scans that have the label"),
    Column("low", "Float64", "lower end of the interval over patients"),
    Column("high", "Float64", "upper end"),
    Column("chance", "Float64", "share of the scans sought among that have the label"),
    Column("n_scans", "Int64", "scans that have the label"),
    Column("n_patients", "Int64", "their patients"),
)

REASONS = {
    "missing_file": "the table names a file that is not there",
    "unreadable": "the file is truncated, empty or no image",
    "wrong_size": "the image has another size than the cohort's scans",
    "constant": "every pixel has the same value",
    "duplicate_path": "the table names this file twice",
    "duplicate_pixels": "the same pixels as another scan of the same patient, which is kept",
    "missing_path": "the row has no path",
    "missing_patient": "the row has no patient",
    "bad_path": "the path leaves the cohort's root or does not have the published form",
    "bad_label": "a label is neither 0, 1 nor empty",
    "bad_value": "a clinical value is not a number in its range",
}
FLAGS = {
    "path_changed": "the table spells the path otherwise than the file: case, separators or a renamed folder",
    "laterality_clash": "the label table has this eye on another side than the clinical table",
    "table_clash": "the two tables differ in BCVA, CST or eye; the clinical table's values are used",
    "shared_pixels": "another patient has the same pixels; both are in one split group",
    "label_clash": "a dropped scan with the same pixels had other labels",
    "narrow_grey": "16 bits a pixel of which at most 12 are used: nearly black in 8 bits unless stretched",
}


def labels_of(manifest: pd.DataFrame) -> list[str]:
    """The label columns of a manifest, in order."""
    known = {column.name for column in MANIFEST}
    return [str(name) for name in manifest.columns if name not in known]


def leading_metric(metrics: pd.DataFrame) -> tuple[str, str]:
    """What arms are compared by, and its name in a sentence: accuracy where labels exclude each other, else AUROC."""
    return ("accuracy", "accuracy") if (metrics["metric"] == "accuracy").any() else ("auroc", "macro AUROC")


def probability(label: str) -> str:
    """The column of predictions.csv that holds the predicted probability of `label`."""
    return f"prob:{label}"


def label_matrix(manifest: pd.DataFrame, labels: list[str] | None = None) -> np.ndarray:
    """Labels as float32 [N, L]: 0, 1, or NaN where missing."""
    return manifest[labels if labels is not None else labels_of(manifest)].to_numpy(np.float32, na_value=np.nan)


def read_table(path: Path, schema: tuple[Column, ...]) -> pd.DataFrame:
    """Read a CSV of ours with the schema's types; columns beyond the schema are numbers.

    Raises:
        UserError: the file or one of its columns is missing, or a value has the wrong type.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such table")
    text = {column.name: "string" for column in schema if column.dtype == "string"}
    numbers = {str(name) for name in read_csv(path, nrows=0).columns} - set(text)
    table = read_csv(path, dtype=text, keep_default_na=False, na_values={name: [""] for name in numbers})
    if missing := [column.name for column in schema if column.name not in table.columns]:
        raise UserError(f"{path}: no column {', '.join(missing)}; expected {', '.join(c.name for c in schema)}")
    for column in schema:
        try:
            table = table.astype({column.name: column.dtype})
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{path}: column {column.name}: {error}; expected {column.dtype}") from None
    return table


def read_csv(path: Path, **how: Any) -> pd.DataFrame:
    """A CSV of ours as pandas reads it; `how`: further arguments of `pd.read_csv`.

    Raises:
        UserError: it cannot be read: missing, empty, no text, rows of different lengths.
    """
    try:
        table: pd.DataFrame = pd.read_csv(path, encoding="utf-8", **how)
    except (ValueError, OverflowError, OSError, MemoryError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: cannot be read as CSV: {error}; expected the table as octdino wrote it") from None
    return table


def write_table(path: Path, table: pd.DataFrame, schema: tuple[Column, ...]) -> None:
    """Write a CSV whose first columns are the schema's, atomically; integers stay integers, missing stays empty."""
    names = [column.name for column in schema]
    rest = [name for name in table.columns if name not in names]
    typed = table.reindex(columns=names + rest).astype({c.name: c.dtype for c in schema})
    with replacing(path) as temporary:
        typed.to_csv(temporary, index=False, lineterminator="\n")


def fraction_patients(splits: pd.DataFrame, fold: int, fraction: float) -> set[str]:
    """The training patients that an arm may see at `fraction`: the first groups by rank, at least one; they nest.

    Args:
        splits: splits.csv.
        fold: which patients are test.
        fraction: share of the labelled training groups, above 0 and at most 1.
    """
    train = splits[(splits["fold"] == fold) & (splits["split"] == "train") & splits["rank"].notna()]
    groups = train.sort_values("rank")["group"].unique()
    count = max(1, math.floor(fraction * len(groups) + 0.5))
    return set(train.loc[train["group"].isin(groups[:count]), "patient"])
