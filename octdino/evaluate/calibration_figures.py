"""Figures of calibration and subgroups: reliability diagrams, calibration errors, forest plot of subgroups, as SVG."""

import math
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from octdino.config import EvaluateSettings
from octdino.data.csv_io import leading_metric
from octdino.data.sampling_units import Unit
from octdino.evaluate.comparable_runs import Run, TestSet
from octdino.evaluate.comparison_figures import empty_figure, one_seed, share_of
from octdino.evaluate.reliability import bins_of
from octdino.plotting import INK, WIDTH, ArmStyle, arm_styles, figure_style, save_svg
from octdino.stats.bootstrap import corrected_confidence, interval

PANELS, ARMS = 6, 3  # at most, of the reliability figure and of the subgroups


def plot_calibration_figures(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], metrics: pd.DataFrame, subgroups: pd.DataFrame,
    resample_weights: np.ndarray, out: Path,
) -> None:  # fmt: skip
    """Write reliability.svg, calibration.svg and subgroups.svg to `out`.

    Args:
        resample_weights: float64 [P, C], those of the tables.
    """
    styles = arm_styles(sorted({run.key.arm for run in runs}))
    patients = {run.key.fraction: run.n_train_patients for run in runs}
    order = leaders(metrics, settings.reference)
    last = max(run.key.fraction for run in runs)
    first = {(run.key.arm, run.key.backbone): run for run in reversed(runs) if run.key.fraction == last}
    shown = [first[one] for one in order[:PANELS] if not np.isnan(first[one].calibrated).all()]
    macro = metrics[metrics["label"] == "macro"]
    errors = [one_seed(macro[macro["metric"] == name]).dropna(subset=["value"]) for name in ("ece", "ece_calibrated")]
    metric, words = leading_metric(metrics)
    groups = subgroups[(subgroups["label"] == "macro") & (subgroups["metric"] == metric)]
    with figure_style():
        save_svg(
            plot_reliability(settings, test, shown, styles, resample_weights),
            out / "reliability.svg",
            "Share of positive scans against predicted probability, before and after temperature scaling, one panel "
            "per arm",
        )
        save_svg(
            plot_calibration_errors(errors[0], errors[1], styles, patients, test.unit),
            out / "calibration.svg",
            "Calibration error of every arm before and after temperature scaling; the numbers are in metrics.csv",
        )
        save_svg(
            plot_subgroup_forest(settings, test.unit, groups, order[:ARMS], words, styles),
            out / "subgroups.svg",
            f"{words[0].upper() + words[1:]} of the leading arms in parts of the test set, with intervals; the numbers "
            "are in subgroups.csv",
        )


def leaders(metrics: pd.DataFrame, reference: str) -> list[tuple[str, str]]:
    """Return arm and backbone, best first by the leading metric at the largest fraction.

    The reference is among the first three.
    """
    metric, _ = leading_metric(metrics)
    table = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == metric)])
    table = table[table["fraction"] == table["fraction"].max()]
    table = table.sort_values(["value", "arm", "backbone"], ascending=[False, True, True])
    order = list(zip(table["arm"], table["backbone"], strict=True))
    others = [one for one in order if one[0] != reference]
    own = [one for one in order if one[0] == reference]
    if len(order) > ARMS and own and own[0] not in order[:ARMS]:
        order = [*others[: ARMS - 1], own[0], *others[ARMS - 1 :], *own[1:]]
    return order


def plot_reliability(
    settings: EvaluateSettings,
    test: TestSet,
    runs: list[Run],
    styles: dict[str, ArmStyle],
    resample_weights: np.ndarray,
) -> Figure:
    """Plot one panel per arm, all evaluable labels together: bins of equal mass; bars are intervals over patients."""
    cells = ~np.isnan(test.truth) & test.evaluable
    if not runs or not cells.any():
        return empty_figure()
    rows = math.ceil(len(runs) / 2)
    figure = Figure(figsize=(WIDTH, 2.35 * rows + 0.4))
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True).ravel()
    truth, patient = test.truth[cells] == 1, np.broadcast_to(test.patient[:, None], cells.shape)[cells]
    several = len({run.key.backbone for run in runs} - {"none"}) > 1
    for axes, run in zip(grid, runs, strict=False):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
        style = styles[run.key.arm]
        for p, after in ((run.probabilities[cells], False), (run.calibrated[cells], True)):
            _plot_bins(axes, settings, truth, p, patient, resample_weights if after else resample_weights[:, :1], style)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.set_title(f"{run.key.arm}\n{run.key.backbone}" if several else run.key.arm)
    for axes in grid[len(runs) :]:
        axes.set_visible(False)
    grid[0].set_ylabel("share positive", loc="bottom")
    grid[max(0, 2 * (rows - 1))].set_xlabel("predicted probability", loc="left")
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


def plot_calibration_errors(
    before: pd.DataFrame,
    after: pd.DataFrame,
    styles: dict[str, ArmStyle],
    patients: dict[float, int | None],
    unit: Unit,
) -> Figure:
    """Plot the calibration error per arm: hollow before temperature scaling, filled with its interval after it."""
    table = before.merge(after, on=["arm", "backbone", "fraction"], suffixes=("", "_after"))
    if table.empty:
        return empty_figure()
    several = len(set(table["backbone"]) - {"none"}) > 1
    figure = Figure(figsize=(WIDTH, 0.7 + 0.23 * (len(table) + 1.4 * table["fraction"].nunique())))
    axes = figure.subplots()
    y, ticks, names = 0.0, [], []
    for fraction, rows in table.groupby("fraction"):
        y += 0.35
        words = share_of(float(str(fraction)), patients.get(float(str(fraction))), unit)
        _heading(axes, y, words)
        y += 1.0
        for _, row in rows.sort_values("value_after").iterrows():
            style = styles[row["arm"]]
            axes.plot([row["value"], row["value_after"]], [y, y], color=style.color, linewidth=0.9, linestyle=":")
            axes.plot([row["low_after"], row["high_after"]], [y, y], color=style.color, linewidth=1.8)
            for x, face in ((row["value"], "none"), (row["value_after"], style.color)):
                axes.plot(
                    x,
                    y,
                    marker=style.marker,
                    color=style.color,
                    markersize=5.5,
                    markerfacecolor=face,
                    linestyle="",
                )
            ticks.append(y)
            names.append(f"{row['arm']} · {row['backbone']}" if several and row["backbone"] != "none" else row["arm"])
            y += 1.0
    _rows_only(axes, y, ticks, names)
    axes.set_xlim(left=0)
    axes.set_xlabel("mean calibration error\nhollow: as predicted\nfilled: temperature-scaled", loc="left")
    return figure


def plot_subgroup_forest(
    settings: EvaluateSettings, unit: Unit, table: pd.DataFrame, arms: list[tuple[str, str]], words: str,
    styles: dict[str, ArmStyle],
) -> Figure:  # fmt: skip
    """Plot the leading arms per subgroup; small groups are hollow. Counts are on the right."""
    chosen = pd.concat([table[(table["arm"] == a) & (table["backbone"] == b)] for a, b in arms]) if arms else table
    groups = list(dict.fromkeys(zip(chosen["subgroup"], chosen["group"], strict=True)))
    if chosen["value"].isna().all():
        return empty_figure()
    headings = len({subgroup for subgroup, _ in groups})
    figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * (len(groups) + 0.9 * headings)))
    axes = figure.subplots()
    y, ticks, names = 0.0, [], []
    for subgroup, members in groupby(groups, key=lambda one: one[0]):
        if subgroup != "all":
            y += 0.2
            over = int(chosen.loc[chosen["subgroup"] == subgroup, "n_labels"].max())
            _heading(axes, y, f"{subgroup} ({over or 'no common'} label{'s' if over > 1 else ''})")
            y += 0.9
        for _, group in members:
            rows = chosen[(chosen["subgroup"] == subgroup) & (chosen["group"] == group)]
            for place, (_, row) in enumerate(rows.iterrows()):
                _plot_point(axes, row, y + 0.22 * (place - (len(rows) - 1) / 2), styles[row["arm"]])
            first = rows.iloc[0]
            patients = f"{first['n_patients']} pat., " if unit.patients else ""
            counts = f"{patients}{first['n_scans']} scans{' *' if first['small'] else ''}"
            axes.annotate(
                counts, (1, y), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=7.5,
            )  # fmt: skip
            ticks.append(y)
            names.append("all test scans" if subgroup == "all" else group)
            y += 1.0
    _rows_only(axes, y, ticks, names)
    axes.set_xlabel(f"{words}; *: fewer than {settings.small_group} {unit.many}", loc="left")
    handles = [
        Line2D([], [], color=styles[arm].color, marker=styles[arm].marker, markersize=4.5, label=arm)
        for arm in dict.fromkeys(arm for arm, _ in arms)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def _plot_point(axes: Axes, row: pd.Series, y: float, style: ArmStyle) -> None:
    axes.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=1.3, solid_capstyle="butt")
    face = "none" if row["small"] else style.color
    axes.plot(row["value"], y, marker=style.marker, color=style.color, markersize=4.5, markerfacecolor=face)


def _heading(axes: Axes, y: float, words: str) -> None:
    axes.annotate(
        words, (0, y), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points", va="center",
        ha="right", fontsize=8.5, fontweight="bold",
    )  # fmt: skip


def _rows_only(axes: Axes, y: float, ticks: list[float], names: list[str]) -> None:
    axes.set_ylim(y - 0.4, -0.5)
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
