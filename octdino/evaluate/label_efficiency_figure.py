"""Figure of label efficiency: the supervised arm's curve, read horizontally at the score of each arm."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from octdino.config import EvaluateSettings
from octdino.data.csv_io import leading_metric, one_seed
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.comparison_figures import fraction_axis
from octdino.evaluate.forest_figures import LEAST_SPAN
from octdino.plotting import (
    LABEL_HEIGHT,
    WIDTH,
    ArmStyle,
    LineEnd,
    arm_styles,
    figure_style,
    label_line_ends,
    save_notice,
    save_svg,
    wide_enough,
)
from octdino.stats.label_efficiency import monotone_curve, shown_fraction

ARMS = 5  # that are read in one panel: more cannot be told apart
NOTHING = (
    "No number of labeled {many} can be read: that takes a supervised arm with two or more fractions, and another arm."
)


def plot_patients_needed(
    settings: EvaluateSettings, test: TestSet, metrics: pd.DataFrame, efficiency: pd.DataFrame,
    patients: dict[float, int | None], path: Path,
) -> None:  # fmt: skip
    """Write the figure, from metrics.csv and label_efficiency.csv; a sentence where the latter is empty."""
    if efficiency.empty:
        save_notice(NOTHING.format(many=test.unit.many), path)
        return
    metric, words = leading_metric(metrics)
    scores = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == metric)])
    read = one_seed(efficiency)
    panels = []
    for backbone, rows in read.groupby("reference_backbone"):
        is_shown = rows.groupby(["arm", "backbone"])["fraction"].transform(shown_fraction) == rows["fraction"]
        best = rows[is_shown].sort_values(["value", "arm"], ascending=[False, True]).head(ARMS)
        several = best["arm"].duplicated(keep=False)
        best = best.assign(name=best["arm"].mask(several, best["arm"] + " · " + best["backbone"]))
        panels.append((str(backbone), scores, best))
    styles = arm_styles(sorted(set(metrics["arm"])))
    known = {fraction: number for fraction, number in patients.items() if number}
    with figure_style():
        figure = _figure(panels, styles, known, words, test.unit.many)
        save_svg(
            figure,
            path,
            f"{words[0].upper() + words[1:]} against labeled training {test.unit.many}: from each arm's score a "
            f"horizontal line to the number with which {efficiency['reference'].iloc[0]} reaches it, with its "
            f"{100 * settings.confidence:g} % interval; the numbers are in label_efficiency.csv",
        )


def _figure(
    panels: list[tuple[str, pd.DataFrame, pd.DataFrame]], styles: dict[str, ArmStyle], patients: dict[float, int],
    words: str, many: str,
) -> Figure:  # fmt: skip
    down, across = math.ceil(len(panels) / 2), min(len(panels), 2)
    height = max(2.8, LABEL_HEIGHT * (ARMS + 1)) + 0.7
    figure = Figure(figsize=(2 * WIDTH, height * down))
    cells = list(figure.subplots(down, across, squeeze=False, sharey=True, sharex=True).ravel())
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    labeled, values = [], []
    for axes, (backbone, scores, read) in zip(cells, panels, strict=False):
        reference = str(read["reference"].iloc[0])
        curve = _line(scores, reference, backbone)
        ends = [_plot_reference(axes, curve, reference, styles[reference], patients)]
        fractions = set(curve["fraction"])
        for _, row in read.iterrows():
            own = _line(scores, row["arm"], row["backbone"])
            ends.append(_plot_reading(axes, row, own, styles[row["arm"]], patients))
            values += [*own["value"]]
            fractions.update(own["fraction"])
        values += [*curve["value"]]
        fraction_axis(axes, sorted(fractions), dict(patients))
        axes.set_title(f"{words}{f', {backbone}' if len(panels) > 1 else ''}")
        axes.set_xlabel(f"labeled training {many}", loc="left")
        axes.tick_params(labelbottom=True, labelleft=True)
        labeled.append((axes, ends))
    cells[0].set_ylim(wide_enough(min(values), max(values), LEAST_SPAN, ceiling=1.015))
    cells[0].yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    label_line_ends(figure, labeled)
    return figure


def _line(scores: pd.DataFrame, arm: str, backbone: str) -> pd.DataFrame:
    """Return the scores of an arm by ascending fraction, without missing ones."""
    own = scores[(scores["arm"] == arm) & (scores["backbone"] == backbone) & scores["value"].notna()]
    return own.sort_values("fraction")


def _plot_reference(
    axes: Axes, curve: pd.DataFrame, arm: str, style: ArmStyle, patients: dict[float, int]
) -> LineEnd:  # fmt: skip
    """Plot the curve that is read, with the scores that it is through or near."""
    numbers = np.array([patients[fraction] for fraction in curve["fraction"]], float)
    grid, values = monotone_curve(numbers, curve["value"].to_numpy(float)[:, None])
    axes.plot(np.exp(grid), values[:, 0], color=style.color, linewidth=2.4)
    axes.plot(numbers, curve["value"], color=style.color, linestyle="", marker=style.marker, markersize=4.5)
    return LineEnd(float(numbers[-1]), float(values[-1, 0]), arm, style.color)


def _plot_reading(
    axes: Axes, row: pd.Series, own: pd.DataFrame, style: ArmStyle, patients: dict[float, int]
) -> LineEnd:  # fmt: skip
    """Plot an arm's line, and from its point at the shown fraction a horizontal line to the curve, with the interval.

    An end beyond the curve is an arrow.
    """
    numbers = np.array([patients[fraction] for fraction in own["fraction"]], float)
    axes.plot(numbers, own["value"], color=style.color, linestyle=style.dash, linewidth=1, alpha=0.5)
    y, start, end = row["value"], row["n_train_patients"], row["reference_patients"]
    axes.plot([start, end], [y, y], color=style.color, linewidth=1, linestyle=":")
    axes.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=3, alpha=0.55, solid_capstyle="butt")
    for side in ("low", "high"):
        if row[f"{side}_is"] != "equal":
            more = row[f"{side}_is"] == "more than"
            beside = row[side] * (1.04 if more else 1 / 1.04)
            axes.plot(
                beside, y, marker=">" if more else "<", color=style.color, markersize=5.5, alpha=0.8, clip_on=False
            )
    axes.plot(start, y, marker=style.marker, color=style.color, markersize=5.5, markerfacecolor="none")
    if row["reference_is"] == "equal":
        axes.plot(end, y, marker=style.marker, color=style.color, markersize=5.5)
    return LineEnd(float(numbers[-1]), float(own["value"].iloc[-1]), str(row["name"]), style.color)
