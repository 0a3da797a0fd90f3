"""Schemas of tables derived from a comparison: label efficiency, power, and differences between runs."""

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
        Column(
            "reference_backbone",
            "string",
            "its backbone: that of the arm, or where the supervised arm was not run on it its first one by name",
            needed=True,
        ),
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
SIDE_BY_SIDE = Schema(
    (
        Column("run", "string", "results folder", needed=True),
        Column("reference_run", "string", "the first results folder, with which the others are compared", needed=True),
        Column("arm", "string", "{init}-{mode}, or clinical; one that both runs have", needed=True),
        Column("backbone", "string", "none for clinical"),
        Column("fraction", "Float64", "share of labeled training patients", low=0, high=1),
        Column("label", "string", "as in metrics.csv; macro over the labels that are evaluable in every run"),
        Column("metric", "string", "as in metrics.csv, those of which more (or less) is better"),
        Column("value", "Float64", "mean over seeds, in this run"),
        Column("value_low", "Float64", "lower end of its interval"),
        Column("value_high", "Float64", "upper end"),
        Column("reference_value", "Float64", "mean over seeds, in the reference run"),
        Column("reference_low", "Float64", "lower end of its interval"),
        Column("reference_high", "Float64", "upper end"),
        Column("difference", "Float64", "this run minus the reference run"),
        Column("low", "Float64", "lower end of its interval"),
        Column("high", "Float64", "upper end"),
        Column("p", "Float64", "two-sided, from the same resamples", low=0, high=1),
        Column(
            "p_adjusted", "Float64", "Holm over the arms with the same run, label, metric and fraction", low=0, high=1
        ),
        Column("paired", "Int64", "1: the same test patients, scans and labels; 0: resampled independently", (0, 1)),
        Column("n_patients", "Int64", "test patients of this run", low=0),
        Column("n_reference_patients", "Int64", "test patients of the reference run", low=0),
        Column("n_seeds", "Int64", "seeds in this run", low=1),
        Column("n_reference_seeds", "Int64", "seeds in the reference run", low=1),
        Column("n_resamples", "Int64", "resamples in which the difference exists", low=0),
    ),
    key=("run", "arm", "backbone", "fraction", "label", "metric"),
)
