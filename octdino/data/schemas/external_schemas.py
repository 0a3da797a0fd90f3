"""Schemas of external validation: scores of external scans, and the table of internal and external performance.

Re-exported by `octdino.data.schemas.csv_schemas`; the metadata beside them is in `external_metadata`.
"""

from octdino.data.schemas.column import Column, Schema

ALL_LABELS = "all"  # in place of a label: a number of scans, whatever their labels are

EXTERNAL_SCORES = Schema(
    (
        Column("scan_id", "string", "as in the manifest of the external cohort", needed=True, unique=True),
        Column("patient", "string", "as in that manifest", needed=True),
        Column(
            "out_of_distribution",
            "Float64",
            "distance to the training scans over the threshold that accepts 95 % of validation scans; above 1: unlike",
            low=0,
            needed=True,
        ),
    ),
    rest=Column("prob:", "Float64", "predicted probability before calibration", low=0, high=1, needed=True),
)
EXTERNAL = Schema(
    (
        Column("cohort", "string", "name of the external cohort"),
        Column("arm", "string", "{init}-{mode}"),
        Column("backbone", "string", ""),
        Column("fraction", "Float64", "share of labeled training patients", low=0, high=1),
        Column("seed", "Int64", "empty: the mean over seeds, where there are several", low=0),
        Column(
            "label",
            "string",
            "external label; macro: the mean over the labels that are evaluable in both cohorts; all: needs no label",
        ),
        Column("internal_labels", "string", "the internal labels that it stands for, joined by +; empty for a mean"),
        Column(
            "metric",
            "string",
            "as in metrics.csv; sensitivity and specificity are at the threshold of the internal validation patients; "
            "out_of_distribution: share of scans above the model folder's threshold",
        ),
        Column("internal", "Float64", "on internal test patients; empty where not evaluable"),
        Column("internal_low", "Float64", "lower end of the interval over patients"),
        Column("internal_high", "Float64", "upper end"),
        Column("external", "Float64", "on all patients of the external cohort, a mean over the folds' models"),
        Column("external_low", "Float64", "lower end of the interval over patients"),
        Column("external_high", "Float64", "upper end"),
        Column("drop", "Float64", "internal minus external"),
        Column("drop_low", "Float64", "lower end of its interval; each cohort's patients are resampled by themselves"),
        Column("drop_high", "Float64", "upper end"),
        Column(
            "n_internal_patients",
            "Int64",
            "internal test patients with this label (of a mean: any of its labels) known",
            low=0,
        ),
        Column("n_external_patients", "Int64", "external patients with the same known", low=0),
        Column("n_internal_scans", "Int64", "their scans", low=0),
        Column("n_external_scans", "Int64", "their scans", low=0),
        Column("n_internal_positive", "Int64", "internal patients with a positive scan; empty for a mean", low=0),
        Column("n_external_positive", "Int64", "external patients with a positive scan; empty for a mean", low=0),
    ),
)
