"""Schemas of tables that the evaluate stage derives from its comparison: label efficiency, and power."""

from octdino.data.schemas.column import Column, Schema

BOUNDS = ("equal", "more than", "fewer than")

LABEL_EFFICIENCY = Schema(
    (
        Column("arm", "string", "{init}-{mode}", needed=True),
        Column("backbone", "string", ""),
        Column("fraction", "Float64", "share of labeled training patients of the arm", low=0, high=1),
        Column("fold", "string", "fold, or pooled"),
        Column("seed", "Int64", "empty: the mean over seeds, where there are several", low=0),
        Column("metric", "string", "the leading metric: auroc (macro), or accuracy of exclusive labels"),
        Column("reference", "string", "the supervised arm whose curve over fractions is read", needed=True),
        Column("n_train_patients", "Int64", "labeled training patients of the arm", low=1, needed=True),
        Column("value", "Float64", "the arm's score, which the reference has to reach"),
        Column("reference_patients", "Float64", "labeled training patients with which the reference reaches it", low=1),
        Column(
            "reference_is",
            "string",
            "equal: that number; more than, fewer than: beyond the largest or smallest fraction, which is named",
            BOUNDS,
        ),
        Column("low", "Float64", "lower end of the interval of this number over resamples of test patients", low=1),
        Column("low_is", "string", "as reference_is", BOUNDS),
        Column("high", "Float64", "upper end", low=1),
        Column("high_is", "string", "as reference_is", BOUNDS),
        Column("n_patients", "Int64", "test patients", low=0),
        Column("n_resamples", "Int64", "resamples of patients in which the number exists", low=0),
    ),
    key=("arm", "backbone", "fraction", "seed"),
)
POWER = Schema(
    (
        Column("arm", "string", "{init}-{mode}", needed=True),
        Column("reference", "string", "as in comparison.csv", needed=True),
        Column("backbone", "string", ""),
        Column("fraction", "Float64", "", low=0, high=1),
        Column("fold", "string", "fold, or pooled"),
        Column("seed", "Int64", "empty: the mean over seeds, where there are several", low=0),
        Column("metric", "string", "the leading metric, of the mean over labels"),
        Column("difference", "Float64", "true difference that is to be shown: evaluate.relevant_difference", low=0),
        Column("standard_error", "Float64", "of the paired difference, over resamples of patients", low=0),
        Column("seed_error", "Float64", "its part between seeds, which more patients do not reduce", low=0),
        Column("n_patients", "Int64", "test patients that there are", low=0),
        Column("level", "Float64", "two-sided significance level: 1 - evaluate.confidence", low=0, high=1),
        Column("power_now", "Float64", "power with the test patients that there are, at this level", low=0, high=1),
        Column("power", "Float64", "the power to reach: evaluate.power", low=0, high=1),
        Column("n_needed", "Float64", "test patients with this power; empty: no number suffices", low=0),
        Column(
            "comparisons", "Int64", "arms with the same reference, fraction and seed, which Holm adjusts for", low=1
        ),
        Column("n_needed_adjusted", "Float64", "the same at level / comparisons, Holm's strictest step", low=0),
    ),
    key=("arm", "reference", "backbone", "fraction", "seed"),
)
