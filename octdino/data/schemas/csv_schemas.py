"""Schemas of the CSV tables that one stage writes and another reads: column names, types and allowed values.

`octdino.data.csv_io` reads and writes by these schemas. A cell that breaks one is refused with file, row and column.
"""

from typing import get_args

from octdino.config.names import AuditCheck
from octdino.data.schemas.column import Column, Schema
from octdino.data.schemas.external_schemas import EXTERNAL as EXTERNAL
from octdino.data.schemas.external_schemas import EXTERNAL_SCORES as EXTERNAL_SCORES

SPLIT_NAMES = ("train", "val", "test")
MACRO, WEIGHTED = "macro", "weighted"  # means over labels; used in place of a label
PROBABILITY = "prob:"  # begins the column of predictions.csv that holds a label's predicted probability
AUDIT_CHECKS = get_args(AuditCheck)
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
    "tested_patient": "the published split trains on this scan of a patient, or with the pixels of one, that it tests",
}


def label_fault(name: str) -> str:
    """Return why a label must not have this name; empty if it may."""
    if not name.strip():
        return "has no name"
    if name in MANIFEST.names:
        return "is a column of manifest.csv with a meaning of its own"
    if name in (MACRO, WEIGHTED):
        return "means the mean over labels in metrics.csv"
    if name.startswith(PROBABILITY):
        return f"begins with {PROBABILITY!r}, as columns of predicted probabilities do"
    return ""


MANIFEST = Schema(
    (
        Column(
            "scan_id",
            "string",
            "unique; the cohort's name and the scan's path or number, safe in file names",
            needed=True,
            unique=True,
        ),
        Column("path", "string", "below the cohort's root, with forward slashes", needed=True),
        Column("cohort", "string", "name of the cohort", needed=True),
        Column("patient", "string", "patient id; images without patients are their own patient", needed=True),
        Column(
            "group",
            "string",
            "split group: the patient, joined with every patient that shares identical pixels",
            needed=True,
        ),
        Column("eye", "string", "which eye, unique over the cohort; empty if unknown"),
        Column("visit", "string", "which visit of the eye; empty if unknown"),
        Column("slice", "Int64", "1-based position in the volume; empty if unknown", low=0),
        Column("laterality", "string", "OD, OS or empty"),
        Column("trial", "string", "site, trial or device; empty if unknown"),
        Column("split", "string", "as splits.csv has it in fold 0", SPLIT_NAMES, needed=True),
        Column("bcva", "Float64", "best corrected visual acuity, ETDRS letters", low=-1e6, high=1e6),
        Column("cst", "Float64", "central subfield thickness, µm", low=-1e6, high=1e6),
        Column("mask", "string", "lesion mask below the cohort's root; empty if there is none"),
        Column(
            "flags",
            "string",
            "unusual properties of a kept scan, separated by spaces: path_changed (the table spells the path otherwise "
            "than the file), laterality_clash (the label table has this eye on another side than the clinical table), "
            "table_clash (the two tables differ in BCVA, CST or eye; the clinical table's values are used), "
            "shared_pixels (another patient has the same pixels; both are in one split group), label_clash (a dropped "
            "scan with the same pixels had other labels), narrow_grey (16 bits per pixel, at most 12 of them used)",
        ),
        Column("pixel_hash", "string", "of the decoded file; the store's content hash is over these"),
    ),
    rest=Column("label", "Float64", "whether the scan shows it", (0, 1)),
    name_fault=label_fault,
)
QUARANTINE = Schema(
    (
        Column("path", "string", "as the table names it"),
        Column("row", "Int64", "row of the table, 2 is the first below the header; empty if there is no table"),
        Column("reason", "string", "why it was refused", tuple(REASONS), needed=True),
        Column("detail", "string", "what was found and what is expected"),
    ),
)
SPLITS = Schema(
    (
        Column("fold", "Int64", "cross-validation fold", low=0, needed=True),
        Column("patient", "string", "patient id", needed=True),
        Column("group", "string", "split group; never in two splits", needed=True),
        Column("split", "string", "where the patient is in this fold", SPLIT_NAMES, needed=True),
        Column("rank", "Int64", "labeled training groups join the fractions in this order; empty for others", low=0),
    ),
    key=("fold", "patient"),
)
PREDICTIONS = Schema(
    (
        Column("scan_id", "string", "as in the manifest", needed=True, unique=True),
        Column("patient", "string", "as in the manifest", needed=True),
        Column("split", "string", "where the patient is in this fold", ("val", "test"), needed=True),
    ),
)
METRICS = Schema(
    (
        Column("arm", "string", "{init}-{mode}, or clinical"),
        Column("backbone", "string", "none for clinical"),
        Column("fraction", "Float64", "share of labeled training patients", low=0, high=1),
        Column("fold", "string", "fold, or pooled"),
        Column("seed", "Int64", "empty: the mean over seeds, where there are several", low=0),
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
        Column("n_patients", "Int64", "test patients with this label known", low=0),
        Column("n_scans", "Int64", "test scans with this label known", low=0),
        Column("n_positive", "Int64", "positive test scans", low=0),
        Column("n_positive_patients", "Int64", "test patients with a positive scan", low=0),
        Column(
            "tier", "string", "how much a label can carry; empty for macro", ("primary", "exploratory", "not evaluable")
        ),
        Column(
            "n_resamples", "Int64", "resamples of patients in which the value exists; the interval is theirs", low=0
        ),
    ),
)
COMPARISON = Schema(
    (
        Column("arm", "string", "{init}-{mode}"),
        Column("reference", "string", "the arm that it is compared with: evaluate.reference, or clinical"),
        Column("backbone", "string", ""),
        Column("fraction", "Float64", "", low=0, high=1),
        Column("fold", "string", "fold, or pooled"),
        Column("seed", "Int64", "empty: the mean over seeds, where there are several", low=0),
        Column("label", "string", "as in metrics.csv"),
        Column("metric", "string", "as in metrics.csv, those of which more (or less) is better"),
        Column("difference", "Float64", "arm minus reference on the same test patients"),
        Column("low", "Float64", "lower end of the paired interval"),
        Column("high", "Float64", "upper end"),
        Column("p", "Float64", "two-sided, from the same resamples", low=0, high=1),
        Column(
            "p_adjusted",
            "Float64",
            "Holm over the arms with the same reference, label, metric, fraction and seed, or mean over seeds",
            low=0,
            high=1,
        ),
        Column("n_patients", "Int64", "test patients with this label known", low=0),
        Column("n_scans", "Int64", "test scans with this label known", low=0),
        Column("n_resamples", "Int64", "resamples of patients in which the difference exists", low=0),
    ),
)
FINDINGS = Schema(
    (
        Column("check", "string", "name of the check", AUDIT_CHECKS, needed=True),
        Column("where", "string", "fold, or folder of the run"),
        Column("count", "Int64", "how many there are; 0 where it cannot be checked", low=0, needed=True),
        Column("detail", "string", "the first of them, or the worst; or why it cannot be checked"),
        Column(
            "state",
            "string",
            "acknowledged: named in audit.acknowledged; left out: a leak of the published split, not of this run",
            ("open", "acknowledged", "left out", "not checkable"),
            needed=True,
        ),
    ),
)
SUBGROUPS = Schema(
    (
        Column("arm", "string", "{init}-{mode}, or clinical"),
        Column("backbone", "string", "none for clinical"),
        Column("fraction", "Float64", "the largest", low=0, high=1),
        Column("fold", "string", "fold, or pooled"),
        Column("seed", "Int64", "empty: the mean over seeds, where there are several", low=0),
        Column("subgroup", "string", "all, trial, eye side, CST, BCVA, position in the volume, or image quality"),
        Column("group", "string", "which part of the test scans"),
        Column("label", "string", "a label, or macro: the mean over the labels evaluable in all groups but small ones"),
        Column("metric", "string", "auroc; accuracy of exclusive labels, at macro"),
        Column("value", "Float64", "empty where not evaluable"),
        Column("low", "Float64", "lower end of the interval over patients"),
        Column("high", "Float64", "upper end"),
        Column("n_patients", "Int64", "test patients in the group, with this label known", low=0),
        Column("n_scans", "Int64", "their scans", low=0),
        Column("n_positive", "Int64", "positive scans; empty for macro", low=0),
        Column("n_positive_patients", "Int64", "their patients; empty for macro", low=0),
        Column("n_labels", "Int64", "labels that the value is a mean over", low=0),
        Column("small", "Int64", "1: fewer patients than evaluate.small_group", (0, 1), needed=True),
        Column("n_resamples", "Int64", "resamples of patients in which the value exists", low=0),
    ),
)
EMBEDDING = Schema(
    (
        Column("scan_id", "string", "as in the manifest", unique=True),
        Column("x", "Float64", "position in the plane; near scans have similar features"),
        Column("y", "Float64", ""),
        Column("how", "string", "projection method"),
    ),
)
OVERLAP = Schema(
    (
        Column("init", "string", "whose weights: scratch, imagenet or a pretraining method"),
        Column("backbone", "string", ""),
        Column("arm", "string", "whose classifier made the map; empty: the map needs none"),
        Column("label", "string", "a label, or macro: the mean over the labels that some scan shows"),
        Column("map", "string", "attention, activation, cam, gradcam or projection"),
        Column(
            "metric",
            "string",
            "iou@M of the mask that holds M % of the map, pointing, pixel_auroc",
            pattern=r"iou@[0-9.]{1,9}|pointing|pixel_auroc",
            needed=True,
        ),
        Column("value", "Float64", "mean over the scans with a lesion of the label"),
        Column("low", "Float64", "lower end of the interval over patients; empty with a single patient"),
        Column("high", "Float64", "upper end"),
        Column("chance", "Float64", "what a map reaches that is the same everywhere, cut at random"),
        Column("n_scans", "Int64", "scans with a lesion of the label", low=0),
        Column("n_patients", "Int64", "their patients", low=0),
    ),
    key=("init", "backbone", "arm", "label", "map", "metric"),
)
JACCARD = Schema(
    (
        Column("init", "string", "whose weights"),
        Column("backbone", "string", ""),
        Column("map", "string", "attention or activation"),
        Column("protocol", "string", "paper, largest, union, largest_void or union_void"),
        Column("blobs", "string", "kept, or removed: small parts of the masks"),
        Column("value", "Float64", "mean over images"),
        Column("low", "Float64", "lower end of the interval over patients; images without patients are their own"),
        Column("high", "Float64", "upper end"),
        Column("n_images", "Int64", "images with an object", low=0),
        Column("n_patients", "Int64", "their patients", low=0),
        Column("n_objects", "Int64", "their objects; one per image for largest and union", low=0),
    ),
    key=("init", "backbone", "map", "protocol", "blobs"),
)
JACCARD_IMAGES = Schema(
    (
        Column("init", "string", "whose weights"),
        Column("backbone", "string", ""),
        Column("scan_id", "string", "as in the manifest"),
        Column("map", "string", "attention or activation"),
        Column("protocol", "string", "as in jaccard.csv"),
        Column("blobs", "string", "as in jaccard.csv"),
        Column("value", "Float64", ""),
        Column("n_objects", "Int64", "as in jaccard.csv", low=0),
    ),
    key=("init", "backbone", "scan_id", "map", "protocol", "blobs"),
)
RETRIEVAL = Schema(
    (
        Column("init", "string", "whose weights"),
        Column("backbone", "string", ""),
        Column("label", "string", "a label, or macro: the mean over labels; empty for same_patient"),
        Column(
            "metric",
            "string",
            "precision@k among other patients' scans; same_patient@k: share of the patient's own",
            pattern=r"(precision|same_patient)@[0-9]{1,9}",
            needed=True,
        ),
        Column("value", "Float64", "mean over the scans that have the label"),
        Column("low", "Float64", "lower end of the interval over patients"),
        Column("high", "Float64", "upper end"),
        Column("chance", "Float64", "share of the scans sought among that have the label"),
        Column("n_scans", "Int64", "scans that have the label", low=0),
        Column("n_patients", "Int64", "their patients", low=0),
    ),
    key=("init", "backbone", "label", "metric"),
)
HISTORY = Schema(
    (Column("epoch", "Int64", "from 1", low=1, needed=True),),
    rest=Column("measure", "Float64", "mean over the epoch's steps, or taken at its end", finite=False),
)
