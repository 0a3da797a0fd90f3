"""Figures per label: AUROC against the fraction, and paired differences, as small multiples."""

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from octdino.config import EvaluateSettings
from octdino.data.sampling_units import Unit
from octdino.evaluate.comparison_figures import empty_figure, one_seed
from octdino.plotting import INK, WIDTH, ArmStyle, arm_styles, figure_style, save_svg
from octdino.stats.significance import alpha

ACROSS = 3
METRIC = "auroc"


def plot_label_figures(
    settings: EvaluateSettings, unit: Unit, metrics: pd.DataFrame, comparison: pd.DataFrame, out: Path
) -> None:
    """Write labels.svg and label_difference.svg to `out`, from the two tables."""
    styles = arm_styles(sorted(set(metrics["arm"])))
    labels = _labels(metrics)
    scores = _of_labels(metrics, labels)
    paired = _of_labels(comparison[comparison["reference"] == settings.reference], labels)
    paired = paired[paired["fraction"] == metrics["fraction"].max()]
    with figure_style():
        save_svg(
            plot_label_scores(scores, labels, styles),
            out / "labels.svg",
            f"AUROC against the share of labeled training {unit.many}, one panel per label, one line per "
            "arm, with intervals; the numbers are in metrics.csv",
        )
        save_svg(
            plot_label_differences(paired, labels, styles, settings.reference, alpha(settings.confidence)),
            out / "label_difference.svg",
            f"Paired difference of AUROC to {settings.reference} at the largest fraction, one panel per label, "
            "one row per arm, with intervals; the numbers are in comparison.csv",
        )


def _labels(metrics: pd.DataFrame) -> list[str]:
    scored = metrics[(metrics["metric"] == METRIC) & metrics["value"].notna()]
    return [str(name) for name in dict.fromkeys(scored["label"]) if name not in ("macro", "weighted")]


def _of_labels(table: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Return AUROC of each label, per classifier the mean over seeds where there are several."""
    parts = [one_seed(table[(table["metric"] == METRIC) & (table["label"] == label)]) for label in labels]
    return pd.concat(parts) if parts else table.iloc[:0]


def _panels(labels: list[str], height: float) -> tuple[Figure, list[Axes]]:
    down = math.ceil(len(labels) / ACROSS)
    figure = Figure(figsize=(2 * WIDTH, height * down + 0.6))
    cells = list(figure.subplots(down, ACROSS, squeeze=False, sharex=True, sharey=True).ravel())
    for axes in cells[len(labels) :]:
        axes.set_visible(False)
    for axes, label in zip(cells, labels, strict=False):
        axes.set_title(label if len(label) < 34 else label[:32] + "…")
        axes.tick_params(labelbottom=True)
    return figure, cells[: len(labels)]


def _names(table: pd.DataFrame) -> pd.Series:
    """Return the arm, and the backbone where there are several."""
    several = len(set(table["backbone"]) - {"none"}) > 1
    joined = table["arm"].astype(str) + " · " + table["backbone"].astype(str)
    return joined.where(several & (table["backbone"] != "none"), table["arm"].astype(str))


def plot_label_scores(table: pd.DataFrame, labels: list[str], styles: dict[str, ArmStyle]) -> Figure:
    """Plot AUROC against the fraction, one panel per label; arms are offset to be told apart."""
    if table.empty or not labels:
        return empty_figure()
    table = table.assign(name=_names(table))
    figure, cells = _panels(labels, 1.75)
    names, ticks = sorted(set(table["name"])), sorted(set(table["fraction"]))
    for axes, label in zip(cells, labels, strict=True):
        rows = table[table["label"] == label]
        axes.axhline(0.5, color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
        for index, name in enumerate(names):
            line = rows[rows["name"] == name].sort_values("fraction")
            if line.empty:
                continue
            style = styles[line["arm"].iloc[0]]
            at = line["fraction"].to_numpy(float) * (1 + 0.025 * (index - (len(names) - 1) / 2))
            axes.plot(
                at, line["value"], color=style.color, linestyle=style.dash, marker=style.marker, markersize=3.2,
                linewidth=1.2, label=name,
            )  # fmt: skip
            axes.vlines(at, line["low"], line["high"], color=style.color, linewidth=0.9, alpha=0.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{100 * tick:g} %" for tick in ticks])
    cells[0].set_ylabel("AUROC", loc="bottom")
    handles = {str(line.get_label()): line for axes in cells for line in axes.lines}
    shown = {name: line for name, line in sorted(handles.items()) if not name.startswith("_")}
    figure.legend(shown.values(), shown.keys(), loc="outside lower left", ncols=4)
    return figure


def plot_label_differences(
    table: pd.DataFrame, labels: list[str], styles: dict[str, ArmStyle], reference: str, level: float
) -> Figure:
    """Plot one panel per label, one row per arm; filled where the adjusted p is below `level`."""
    if table.empty or not labels:
        return empty_figure()
    table = table.assign(name=_names(table))
    names = sorted(set(table["name"]))
    figure, cells = _panels(labels, 0.5 + 0.19 * len(names))
    for axes, label in zip(cells, labels, strict=True):
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.7)
        for _, row in table[table["label"] == label].iterrows():
            style, y = styles[row["arm"]], names.index(row["name"])
            axes.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=1.5, solid_capstyle="butt")
            face = style.color if row["p_adjusted"] < level else "none"
            axes.plot(
                row["difference"],
                y,
                marker=style.marker,
                color=style.color,
                markersize=4.5,
                markerfacecolor=face,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
    figure.supxlabel(f"AUROC minus {reference}'s", x=0, ha="left", fontsize=9)
    return figure
