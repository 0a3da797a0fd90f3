"""Figures per label: AUROC at every fraction, and paired differences, as forest plots with one panel per label."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from octdino.config import EvaluateSettings
from octdino.data.cohort_words import Words
from octdino.data.csv_io import one_seed
from octdino.evaluate.forest_figures import (
    LEAST_SPAN,
    Rows,
    label_below,
    label_title,
    plot_differences,
    plot_forest,
)
from octdino.evaluate.leading_arms import by_family, row_order
from octdino.plotting import INK, ArmStyle, arm_styles, figure_style, save_notice, save_svg, wide_enough
from octdino.stats.significance import alpha

METRIC = "auroc"
SIZES = (5.5, 4.2, 3.2, 2.6)  # points, of the markers of the largest fraction, of the next one, and so on


def plot_label_figures(
    settings: EvaluateSettings, words: Words, metrics: pd.DataFrame, comparison: pd.DataFrame,
    pretrained: Mapping[str, str], out: Path,
) -> None:  # fmt: skip
    """Write labels.svg and label_difference.svg to `out`, from the two tables; arms grouped as in comparison.svg."""
    styles = arm_styles(sorted(set(metrics["arm"])))
    labels = _labels(metrics)
    if len(labels) < 2:
        why = f"The only evaluable {words.label}, {labels[0]}, is" if labels else f"No {words.label} is evaluable:"
        why += " in the comparison above." if labels else " there is nothing to plot."
        for name in ("labels", "label_difference"):
            save_notice(why, out / f"{name}.svg")
        return
    scores = _of_labels(metrics, labels)
    paired = _of_labels(comparison[comparison["reference"] == settings.reference], labels)
    paired = paired[paired["fraction"] == metrics["fraction"].max()]
    rows = row_order(metrics)
    with figure_style():
        save_svg(
            plot_label_scores(scores, labels, by_family(rows, pretrained), styles, words),
            out / "labels.svg",
            f"AUROC by share of labeled training {words.unit.many}, one panel per {words.label}, one row per arm, "
            "intervals at the largest share; the numbers are in metrics.csv",
        )
        if paired.empty:
            alone = f"No other arm was run with {settings.reference}, so there are no paired differences."
            save_notice(alone, out / "label_difference.svg")
            return
        known = set(zip(paired["arm"], paired["backbone"], strict=True))
        compared = by_family([row for row in rows if row in known], pretrained)
        panels = [(label_title(label), paired[paired["label"] == label]) for label in labels]
        words_below = f"AUROC minus {settings.reference}'s"
        save_svg(
            plot_differences(panels, compared, styles, words_below, {}, alpha(settings.confidence)),
            out / "label_difference.svg",
            f"Paired difference of AUROC to {settings.reference} at the largest fraction, one panel per "
            f"{words.label}, one row per arm, with intervals; the numbers are in comparison.csv",
        )


def _labels(metrics: pd.DataFrame) -> list[str]:
    scored = metrics[(metrics["metric"] == METRIC) & metrics["value"].notna()]
    return [str(name) for name in dict.fromkeys(scored["label"]) if name not in ("macro", "weighted")]


def _of_labels(table: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Return AUROC of each label, per classifier the mean over seeds where there are several."""
    parts = [one_seed(table[(table["metric"] == METRIC) & (table["label"] == label)]) for label in labels]
    return pd.concat(parts)


def plot_label_scores(
    table: pd.DataFrame, labels: list[str], rows: Rows, styles: dict[str, ArmStyle], words: Words
) -> Figure:
    """Plot AUROC, one panel per label, one row per arm: small hollow points are smaller fractions."""
    fractions = sorted(set(table["fraction"]), reverse=True)
    panels = []
    for label in labels:
        of_label = table[table["label"] == label]
        panels.append((label_title(label), of_label.drop_duplicates(["arm", "backbone"])))

    def plot_row(axes: Axes, row: pd.Series, y: float) -> None:
        own = (table["label"] == row["label"]) & (table["arm"] == row["arm"]) & (table["backbone"] == row["backbone"])
        _plot_fractions(axes, table[own].sort_values("fraction"), fractions, y, styles[row["arm"]])

    figure, cells = plot_forest(panels, rows, plot_row, {})
    values = table[["value", "low", "high"]].to_numpy(float)
    low, high = float(pd.DataFrame(values).min().min()), float(pd.DataFrame(values).max().max())
    cells[0].set_xlim(wide_enough(low, high, LEAST_SPAN, ceiling=1.02))
    for axes in cells:
        axes.axvline(0.5, color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
    shares = ", ".join(f"{100 * fraction:g} %" for fraction in fractions[1:])
    smaller = f"; hollow, from large to small: {shares}" if shares else ""
    label_below(
        figure, cells, f"AUROC with {100 * fractions[0]:g} % of labeled training {words.unit.many}{smaller}"
    )  # fmt: skip
    return figure


def _plot_fractions(axes: Axes, line: pd.DataFrame, fractions: list[float], y: float, style: ArmStyle) -> None:
    """Plot one arm: the interval of its largest fraction, and a point per fraction, joined."""
    last = line.iloc[-1]
    axes.plot(line["value"], [y] * len(line), color=style.color, linewidth=0.8, alpha=0.6, linestyle=":")
    axes.plot([last["low"], last["high"]], [y, y], color=style.color, linewidth=1.6, solid_capstyle="butt")
    for _, row in line.iterrows():
        rank = fractions.index(row["fraction"])
        axes.plot(
            row["value"], y, marker=style.marker, color=style.color, markersize=SIZES[min(rank, len(SIZES) - 1)],
            markerfacecolor=style.color if rank == 0 else "none",
        )  # fmt: skip
