"""Figures of calibration and subgroups: reliability diagrams, calibration errors, forest plot of subgroups, as SVG."""

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from octdino.config import EvaluateSettings
from octdino.data.cohort_words import Words
from octdino.data.csv_io import leading_metric, one_seed
from octdino.evaluate.classifier_runs import Run
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.forest_figures import LEAST_SPAN, Rows, label_below, plot_forest, share_of
from octdino.evaluate.leading_arms import FEW, leaders, row_names, row_order
from octdino.evaluate.reliability import bins_of
from octdino.plotting import (
    INK,
    WIDTH,
    ArmStyle,
    arm_styles,
    figure_style,
    grid_shape,
    save_notice,
    save_svg,
    wide_enough,
)
from octdino.stats.bootstrap import corrected_confidence, interval

PANELS = 6  # at most, of the reliability figure


def plot_calibration_figures(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], metrics: pd.DataFrame, subgroups: pd.DataFrame,
    resample_weights: np.ndarray, out: Path,
) -> None:  # fmt: skip
    """Write reliability.svg, calibration.svg and subgroups.svg to `out`.

    Args:
        resample_weights: float64 [P, C], those of the tables.
    """
    styles = arm_styles(sorted({run.key.arm for run in runs}))
    order = leaders(metrics, settings.reference)
    with figure_style():
        _save_reliability(settings, test, runs, order, styles, resample_weights, out / "reliability.svg")
        _save_errors(test, runs, metrics, styles, out / "calibration.svg")
        metric, words = leading_metric(metrics)
        groups = subgroups[(subgroups["label"] == "macro") & (subgroups["metric"] == metric)]
        shown = order[:FEW]
        chosen = [groups[(groups["arm"] == arm) & (groups["backbone"] == backbone)] for arm, backbone in shown]
        if all(table["value"].isna().all() for table in chosen):
            save_notice(f"Nothing to plot: no {test.words.label} is evaluable.", out / "subgroups.svg")
            return
        save_svg(
            plot_subgroup_forest(settings, test.words, shown, chosen, words, styles),
            out / "subgroups.svg",
            f"{words[0].upper() + words[1:]} of the leading arms in parts of the test set, with intervals; the numbers "
            "are in subgroups.csv",
        )


def _save_reliability(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], order: Rows, styles: dict[str, ArmStyle],
    resample_weights: np.ndarray, path: Path,
) -> None:  # fmt: skip
    last = max(run.key.fraction for run in runs)
    first = {(run.key.arm, run.key.backbone): run for run in reversed(runs) if run.key.fraction == last}
    shown = [first[one] for one in order[:PANELS] if not np.isnan(first[one].calibrated).all()]
    if not shown or not (~np.isnan(test.truth) & test.evaluable).any():
        save_notice("Nothing to plot: no probabilities were calibrated, or nothing is evaluable.", path)
        return
    save_svg(
        plot_reliability(settings, test, shown, styles, resample_weights),
        path,
        f"Share of positive {test.words.scans} against predicted probability, before and after temperature scaling, "
        "one panel per arm",
    )


def plot_reliability(
    settings: EvaluateSettings,
    test: TestSet,
    runs: list[Run],
    styles: dict[str, ArmStyle],
    resample_weights: np.ndarray,
) -> Figure:
    """Plot one panel per arm, all evaluable labels together: bins of equal mass; bars are intervals over patients."""
    cells = ~np.isnan(test.truth) & test.evaluable
    down, across = grid_shape(len(runs), 3)
    size = {1: 3.0, 2: WIDTH / 2, 3: 2 * WIDTH / 3}[across]
    figure = Figure(figsize=(WIDTH if across < 3 else 2 * WIDTH, size * down + 0.8))
    grid = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel())
    truth, patient = test.truth[cells] == 1, np.broadcast_to(test.patient[:, None], cells.shape)[cells]
    names = row_names([(run.key.arm, run.key.backbone) for run in runs])
    for axes, run in zip(grid, runs, strict=False):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
        style = styles[run.key.arm]
        for p, after in ((run.probabilities[cells], False), (run.calibrated[cells], True)):
            _plot_bins(axes, settings, truth, p, patient, resample_weights if after else resample_weights[:, :1], style)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.set_title(names[run.key.arm, run.key.backbone].replace(" · ", "\n"))
    for axes in grid[len(runs) :]:
        axes.set_axis_off()
    grid[0].set_ylabel("share positive", loc="bottom")
    grid[across * (down - 1)].set_xlabel("predicted probability", loc="left")
    hollow: Any = {"color": INK, "marker": "o", "markersize": 4, "linewidth": 1}
    handles = [
        Line2D([], [], **hollow, linestyle=(0, (2, 2)), markerfacecolor="none", label="as predicted"),
        Line2D([], [], **hollow, label=f"temperature-scaled on validation {test.unit.many}"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def _plot_bins(
    axes: Axes, settings: EvaluateSettings, truth: np.ndarray, p: np.ndarray, patient: np.ndarray,
    resample_weights: np.ndarray, style: ArmStyle,
) -> None:  # fmt: skip
    """Plot one line of bins; with resamples its intervals."""
    bins = bins_of(p, settings.bins)
    filled = np.unique(bins)
    sums = np.zeros((3, len(resample_weights), settings.bins))
    for total, values in zip(sums, (np.ones(len(p)), truth, p), strict=True):
        np.add.at(total, (patient, bins), values)
    weights = resample_weights[:, : 1 + settings.resamples]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (weights.T @ sums[1] / (weights.T @ sums[0]))[:, filled]
    mean = (sums[2].sum(0)[filled]) / sums[0].sum(0)[filled]
    resampled = weights.shape[1] > 1
    axes.plot(
        mean, share[0], color=style.color, marker="o", markersize=3.5, linewidth=1.3 if resampled else 0.9,
        linestyle="-" if resampled else (0, (2, 2)), markerfacecolor=style.color if resampled else "none",
        alpha=1 if resampled else 0.75,
    )  # fmt: skip
    if resampled:
        level = (
            corrected_confidence(settings.confidence, len(resample_weights))
            if settings.small_sample_correction
            else settings.confidence
        )
        low, high = interval(share[1:], level)
        axes.vlines(mean, low, high, color=style.color, linewidth=0.9, alpha=0.6)


def _save_errors(
    test: TestSet, runs: list[Run], metrics: pd.DataFrame, styles: dict[str, ArmStyle], path: Path
) -> None:
    macro = metrics[metrics["label"] == "macro"]
    before, after = (
        one_seed(macro[macro["metric"] == name]).dropna(subset=["value"]) for name in ("ece", "ece_calibrated")
    )
    table = before.merge(after, on=["arm", "backbone", "fraction"], suffixes=("", "_after"))
    if table.empty:
        save_notice("Nothing to plot: no probabilities were calibrated, or nothing is evaluable.", path)
        return
    patients = {run.key.fraction: run.n_train_patients for run in runs}
    panels = [
        (share_of(float(str(fraction)), patients.get(float(str(fraction))), test.unit), part)
        for fraction, part in table.groupby("fraction")
    ]
    known = set(zip(table["arm"], table["backbone"], strict=True))
    save_svg(
        plot_calibration_errors(panels, [row for row in row_order(metrics) if row in known], styles),
        path,
        "Calibration error of every arm before and after temperature scaling; the numbers are in metrics.csv",
    )


def plot_calibration_errors(
    panels: list[tuple[str, pd.DataFrame]], rows: Rows, styles: dict[str, ArmStyle]
) -> Figure:  # fmt: skip
    """Plot the calibration error per arm: hollow before temperature scaling, filled with its interval after it."""

    def plot_row(axes: Axes, row: pd.Series, y: float) -> None:
        style = styles[row["arm"]]
        axes.plot([row["value"], row["value_after"]], [y, y], color=style.color, linewidth=0.9, linestyle=":")
        axes.plot([row["low_after"], row["high_after"]], [y, y], color=style.color, linewidth=1.8)
        for x, face in ((row["value"], "none"), (row["value_after"], style.color)):
            axes.plot(
                x, y, marker=style.marker, color=style.color, markersize=5.5, markerfacecolor=face, linestyle=""
            )  # fmt: skip

    figure, cells = plot_forest(panels, rows, plot_row, {})
    values = pd.concat(table[["value", "value_after", "high_after"]] for _, table in panels)
    cells[0].set_xlim(wide_enough(0.0, float(values.max().max()), LEAST_SPAN, floor=-0.004))
    label_below(figure, cells, "mean calibration error\nhollow: as predicted\nfilled: temperature-scaled")
    return figure


def plot_subgroup_forest(
    settings: EvaluateSettings, words: Words, shown: Rows, tables: list[pd.DataFrame], metric: str,
    styles: dict[str, ArmStyle],
) -> Figure:  # fmt: skip
    """Plot the leading arms per subgroup, one panel per arm; small groups are hollow. Counts are on the right."""
    first = max(tables, key=len)
    groups = list(dict.fromkeys(zip(first["subgroup"], first["group"], strict=True)))
    headings = len({subgroup for subgroup, _ in groups})
    figure = Figure(figsize=(2 * WIDTH, 0.9 + 0.21 * (len(groups) + 1.1 * headings)))
    cells = list(figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True).ravel())
    y, heights = 0.0, {}
    for subgroup, members in groupby(groups, key=lambda one: one[0]):
        if subgroup != "all":
            y += 0.2
            over = int(first.loc[first["subgroup"] == subgroup, "n_labels"].max())
            nouns = words.label if over == 1 else words.labels
            _heading(cells[0], y, f"{subgroup} ({over or 'no common'} {nouns})")
            y += 0.9
        for member in members:
            heights[member] = y
            y += 1.0
    names = row_names(shown)
    for axes, key, table in zip(cells, shown, tables, strict=True):
        for _, row in table.iterrows():
            _plot_point(axes, row, heights[row["subgroup"], row["group"]], styles[key[0]])
        axes.set_title(names[key].replace(" · ", "\n"))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    _write_counts(cells[-1], first, heights, words)
    ticks = [f"all test {words.scans}" if subgroup == "all" else group for subgroup, group in heights]
    cells[0].set_yticks(list(heights.values()), ticks)
    cells[0].set_ylim(y - 0.4, -0.6)
    values = pd.concat(tables)[["value", "low", "high"]]
    limits = wide_enough(float(values.min().min()), float(values.max().max()), LEAST_SPAN, ceiling=1.015)
    cells[0].set_xlim(limits)
    label_below(
        figure, [*cells, *cells], f"{metric}; hollow and *: fewer than {settings.small_group} {words.unit.many}"
    )
    return figure


def _write_counts(axes: Axes, table: pd.DataFrame, heights: dict[tuple[str, str], float], words: Words) -> None:
    """Write the numbers of patients and scans of each group to the right of the last panel."""
    for _, row in table.iterrows():
        patients = f"{row['n_patients']} pat., " if words.unit.patients else ""
        axes.annotate(
            f"{patients}{row['n_scans']} {words.scans}{' *' if row['small'] else ''}",
            (1, heights[row["subgroup"], row["group"]]), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=7.5,
        )  # fmt: skip


def _plot_point(axes: Axes, row: pd.Series, y: float, style: ArmStyle) -> None:
    axes.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=1.5, solid_capstyle="butt")
    face = "none" if row["small"] else style.color
    axes.plot(row["value"], y, marker=style.marker, color=style.color, markersize=4.5, markerfacecolor=face)


def _heading(axes: Axes, y: float, words: str) -> None:
    axes.annotate(
        words, (0, y), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points", va="center",
        ha="right", fontsize=8.5, fontweight="bold",
    )  # fmt: skip
