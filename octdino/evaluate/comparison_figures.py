"""Figures of the comparison: forest plots, label efficiency, ROC and precision-recall curves, as SVG."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from octdino.config import EvaluateSettings
from octdino.data.csv_io import leading_metric
from octdino.data.sampling_units import Unit
from octdino.evaluate.comparable_runs import Run, TestSet
from octdino.plotting import INK, WIDTH, ArmStyle, arm_styles, figure_style, save_svg
from octdino.stats.significance import alpha


def plot_comparison_figures(
    settings: EvaluateSettings,
    test: TestSet,
    runs: list[Run],
    metrics: pd.DataFrame,
    comparison: pd.DataFrame,
    out: Path,
) -> None:
    """Write comparison.svg, difference.svg, label_efficiency.svg, roc.svg and pr.svg to `out`.

    The curves are of the predictions, the others of the two tables.
    """
    styles = arm_styles(sorted({run.key.arm for run in runs}))
    metric, words = leading_metric(metrics)
    capital = words[0].upper() + words[1:]
    macro = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == metric)])
    macro = macro[macro["value"].notna()]
    paired = comparison[(comparison["label"] == "macro") & (comparison["metric"] == metric)]
    paired = one_seed(paired[paired["reference"] == settings.reference])
    patients = {run.key.fraction: run.n_train_patients for run in runs}
    share, level = f"{100 * settings.confidence:g} % intervals over {test.unit.many}", alpha(settings.confidence)
    with figure_style():
        save_svg(
            plot_forest(macro, "value", f"{words}\n{share}", styles, patients, test.unit),
            out / "comparison.svg",
            f"{capital} of every arm at every fraction, with intervals; the numbers are in metrics.csv",
        )
        save_svg(
            plot_forest(
                paired,
                "difference",
                f"{words}\nminus {settings.reference}'s\n{share}",
                styles,
                patients,
                test.unit,
                level,
            ),
            out / "difference.svg",
            f"Paired difference of {words} to {settings.reference}; the numbers are in comparison.csv",
        )
        save_svg(
            plot_label_efficiency(macro, words, styles, patients, test.unit),
            out / "label_efficiency.svg",
            f"{capital} against the number of labeled training {test.unit.many}, one line per arm, with intervals",
        )
        largest = max(run.key.fraction for run in runs)
        last = [run for run in runs if run.key.fraction == largest]
        last = [run for run in last if run.key.seed == min(other.key.seed or 0 for other in last)]
        for name, curve, words in (("roc", _plot_roc, "ROC"), ("pr", _plot_pr, "Precision-recall")):
            save_svg(
                plot_curves(test, last, styles, curve),
                out / f"{name}.svg",
                f"{words} curves of every arm, one panel per label, trained on fraction {largest:g}",
            )


def one_seed(table: pd.DataFrame) -> pd.DataFrame:
    """Return per classifier the mean over seeds where there are several, else its only seed."""
    keys = ["arm", "backbone", "fraction"]
    return table.sort_values("seed", na_position="first").groupby(keys, as_index=False).head(1).sort_values(keys)


def _name(row: pd.Series, backbones: int) -> str:
    return str(row["arm"]) if backbones < 2 or row["backbone"] == "none" else f"{row['arm']} · {row['backbone']}"


def share_of(fraction: float, patients: int | None, unit: Unit) -> str:
    """Return "10 % of labeled training patients (7)"; images where that is the unit."""
    counted = "" if patients is None else f" ({patients})"
    return f"{100 * fraction:g} % of labeled training {unit.many}{counted}"


def plot_forest(
    table: pd.DataFrame, column: str, title: str, styles: dict[str, ArmStyle], patients: dict[float, int | None],
    unit: Unit, level: float = 0.0,
) -> Figure:  # fmt: skip
    """Return a forest plot: points with intervals, one row per arm, grouped by fraction.

    A difference whose adjusted p is below `level` is filled, others are hollow.
    """
    if table.empty:
        return empty_figure()
    backbones = table.loc[table["backbone"] != "none", "backbone"].nunique()
    figure = Figure(figsize=(WIDTH, 0.55 + 0.23 * (len(table) + 1.4 * table["fraction"].nunique())))
    axes = figure.subplots()
    y, ticks, names = 0.0, [], []
    for fraction, rows in table.groupby("fraction"):
        y += 0.35
        axes.annotate(
            share_of(float(str(fraction)), patients.get(float(str(fraction))), unit), (0, y),
            xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points", va="center",
            ha="right", fontsize=8.5, fontweight="bold",
        )  # fmt: skip
        y += 1.0
        for _, row in rows.sort_values(column, ascending=False).iterrows():
            style = styles[row["arm"]]
            filled = column == "value" or row["p_adjusted"] < level
            axes.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=1.8, solid_capstyle="butt")
            axes.plot(
                row[column], y, marker=style.marker, color=style.color, markersize=6, markeredgewidth=1.6,
                markerfacecolor=style.color if filled else "none",
            )  # fmt: skip
            ticks.append(y)
            names.append(_name(row, backbones))
            y += 1.0
    axes.set_ylim(y - 0.4, -0.4)
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(title, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(4))  # names on the left may leave little room
    if column == "difference":
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.7)
    return figure


def plot_label_efficiency(
    table: pd.DataFrame, words: str, styles: dict[str, ArmStyle], patients: dict[float, int | None], unit: Unit
) -> Figure:
    """Plot the leading metric against labeled training patients, one panel per backbone; arms are offset."""
    backbones = sorted(set(table["backbone"]) - {"none"})
    if table.empty:
        return empty_figure()
    panels = max(1, len(backbones))
    figure = Figure(figsize=(WIDTH, 3.1 * panels + 0.3))
    grid = np.atleast_1d(figure.subplots(panels, 1, sharey=True))
    known = all(patients.get(fraction) for fraction in table["fraction"])
    ticks = sorted(set(table["fraction"]))
    for axes, backbone in zip(grid, backbones or ["none"], strict=True):
        rows = table[table["backbone"].isin([backbone, "none"])]
        arms = sorted(rows["arm"].unique())
        for index, arm in enumerate(arms):
            line = rows[rows["arm"] == arm].sort_values("fraction")
            shift = 1 + 0.012 * (index - (len(arms) - 1) / 2) * (1 if len(ticks) > 1 else 0.3)
            at = np.array([(patients[f] or 0) if known else f for f in line["fraction"]], float) * shift
            style = styles[arm]
            axes.plot(
                at,
                line["value"],
                color=style.color,
                linestyle=style.dash,
                marker=style.marker,
                markersize=4.5,
                label=arm,
            )
            axes.vlines(at, line["low"], line["high"], color=style.color, linewidth=1, alpha=0.55)
        axes.set_xscale("log")
        places = [(patients[f] or 0) if known else f for f in ticks]
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
        names = [f"{n}\n{100 * f:g} %" if known else f"{100 * f:g} %" for n, f in zip(places, ticks, strict=True)]
        shown = apart(places)
        axes.set_xticklabels([name if keep else "" for name, keep in zip(names, shown, strict=True)])
        if len(ticks) == 1:
            axes.set_xlim(places[0] * 0.9, places[0] * 1.1)
        axes.set_title(f"{words}{f', {backbone}' if len(backbones) > 1 else ''}")
        axes.set_xlabel(f"labeled training {unit.many}", loc="left")
    _legend(figure)
    return figure


def apart(places: list[float], least: float = 0.11) -> list[bool]:
    """Return which ascending ticks of a logarithmic axis keep their labels so that none overlap."""
    width = math.log(places[-1] / places[0]) or 1.0
    shown, right = [], math.inf
    for place in reversed(places):
        keep = math.log(place) <= right - least * width
        right = math.log(place) if keep else right
        shown.append(keep)
    return shown[::-1]


def plot_curves(
    test: TestSet,
    runs: list[Run],
    styles: dict[str, ArmStyle],
    curve: Callable[[Axes, np.ndarray, np.ndarray, ArmStyle], None],
) -> Figure:
    """Plot one panel per label (and backbone), one curve per arm."""
    backbones = sorted({run.key.backbone for run in runs} - {"none"}) or ["none"]
    panels = [(index, backbone) for backbone in backbones for index in np.flatnonzero(test.evaluable)]
    if not panels:
        return empty_figure()
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(WIDTH, 2.25 * rows + 0.4))
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (index, backbone) in zip(grid, panels, strict=False):
        known = ~np.isnan(test.truth[:, index])
        truth = test.truth[known, index] == 1
        for run in runs:
            if run.key.backbone in (backbone, "none"):
                curve(axes, truth, run.probabilities[known, index], styles[run.key.arm])
                axes.lines[-1].set_label(run.key.arm)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        name = test.labels[index] if len(test.labels[index]) < 30 else test.labels[index][:28] + "…"
        axes.set_title(f"{name}\n{backbone}" if len(backbones) > 1 else name)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    _legend(figure)
    return figure


def _plot_roc(axes: Axes, truth: np.ndarray, score: np.ndarray, styles: ArmStyle) -> None:
    if not axes.lines:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
        axes.set_xlabel("1 - specificity", loc="left")
        axes.set_ylabel("sensitivity", loc="bottom")
    x, y, _ = roc_curve(truth, score)
    axes.plot(x, y, color=styles.color, linestyle=styles.dash, linewidth=1.3)


def _plot_pr(axes: Axes, truth: np.ndarray, score: np.ndarray, styles: ArmStyle) -> None:
    if not axes.lines:
        axes.axhline(truth.mean(), color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
        axes.set_xlabel("sensitivity (recall)", loc="left")
        axes.set_ylabel("precision", loc="bottom")
    precision, recall, _ = precision_recall_curve(truth, score, drop_intermediate=True)
    axes.step(recall, precision, color=styles.color, linestyle=styles.dash, linewidth=1.3, where="post")


def _legend(figure: Figure) -> None:
    """Add a legend with every arm once, also one that only one backbone has."""
    handles: dict[str, Line2D] = {}
    for line in (line for axes in figure.axes for line in axes.lines):
        if not str(line.get_label()).startswith("_"):
            handles.setdefault(str(line.get_label()), line)
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=2)


def empty_figure() -> Figure:
    """Return the figure that replaces one for which there are no numbers."""
    figure = Figure(figsize=(WIDTH, 0.6))
    figure.text(0.0, 0.5, "Nothing to plot: no label is evaluable, or there is nothing to compare.", va="center")
    return figure
