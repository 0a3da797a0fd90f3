"""Forest plots: one row per arm, one panel per fraction or per label, points with intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from octdino.data.sampling_units import Unit
from octdino.evaluate.leading_arms import HEADING, row_names
from octdino.plotting import INK, WIDTH, ArmStyle, grid_shape, shortened, wide_enough

ROW = 0.23  # inches
LEAST_SPAN = 0.1  # of an axis of scores, so that small differences do not look large

Rows = list[tuple[str, str]]  # arm and backbone, or HEADING and the name of a family
PlotRow = Callable[[Axes, pd.Series, float], None]


def share_of(fraction: float, patients: int | None, unit: Unit) -> str:
    """Return "10 % of labeled training patients (7)"; images where that is the unit."""
    counted = "" if patients is None else f" ({patients})"
    return f"{100 * fraction:g} % of labeled\ntraining {unit.many}{counted}"


def plot_forest(
    panels: Sequence[tuple[str, pd.DataFrame]], rows: Rows, plot_row: PlotRow, missing: dict[tuple[str, str], str]
) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per table, all with the same rows and axes, and its panels.

    Args:
        panels: title and table of each panel; the tables have columns arm and backbone.
        plot_row: plots one row of a table at a height.
        missing: words at the place of a row that no table has, such as the reference among differences.
    """
    down, across = grid_shape(len(panels))
    title_lines = max(title.count("\n") for title, _ in panels) + 1
    height = ROW * len(rows) + 0.16 * title_lines + 0.35
    figure = Figure(figsize=(WIDTH if across == 1 else 2 * WIDTH, height * down + 0.45))
    cells = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel())
    names = row_names(rows)
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, table) in zip(cells, panels, strict=False):
        found = {(str(row["arm"]), str(row["backbone"])): row for _, row in table.iterrows()}
        for y, key in enumerate(rows):
            if key in found:
                plot_row(axes, found[key], float(y))
            elif key in missing:
                axes.annotate(
                    missing[key], (0.02, y), xycoords=axes.get_yaxis_transform(), va="center", fontsize=7.5, alpha=0.8
                )
        axes.set_title(title)
        axes.tick_params(labelbottom=True)
        axes.xaxis.set_major_locator(MaxNLocator(4 if across < 3 else 3, steps=[1, 2, 5, 10]))
        axes.set_yticks(range(len(rows)), [names[key] for key in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        # Only the first panel of a row of panels has labels: the axes are shared.
        for words, (arm, _) in zip(axes.get_yticklabels(), rows, strict=False):
            if arm == HEADING:
                words.set(fontweight="bold", fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure, cells[: len(panels)]


def plot_scores(
    panels: Sequence[tuple[str, pd.DataFrame]], rows: Rows, styles: dict[str, ArmStyle], words: str
) -> Figure:
    """Return a forest plot of scores: points with intervals."""

    def plot_row(axes: Axes, row: pd.Series, y: float) -> None:
        _point(axes, row, "value", y, styles[row["arm"]], filled=True)

    figure, cells = plot_forest(panels, rows, plot_row, {})
    low, high = _extent(panels, "value")
    cells[0].set_xlim(wide_enough(low, high, LEAST_SPAN, ceiling=1.015))
    label_below(figure, cells, words)
    return figure


def plot_differences(
    panels: Sequence[tuple[str, pd.DataFrame]], rows: Rows, styles: dict[str, ArmStyle], words: str,
    missing: dict[tuple[str, str], str], level: float,
) -> Figure:  # fmt: skip
    """Return a forest plot of differences; a point whose adjusted p is below `level` is filled, others are hollow."""

    def plot_row(axes: Axes, row: pd.Series, y: float) -> None:
        _point(axes, row, "difference", y, styles[row["arm"]], filled=row["p_adjusted"] < level)

    figure, cells = plot_forest(panels, rows, plot_row, missing)
    low, high = _extent(panels, "difference")
    cells[0].set_xlim(wide_enough(min(low, 0), max(high, 0), LEAST_SPAN))
    for axes in cells:
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.7)
    label_below(figure, cells, words)
    return figure


def label_below(figure: Figure, cells: Sequence[Axes], words: str) -> None:
    """Write what the axes of all panels show, once."""
    if len(cells) == 1:
        cells[0].set_xlabel(words, loc="left")
    else:
        figure.supxlabel(words.replace("\n", ", "), x=0, ha="left", fontsize=9)


def label_title(label: str) -> str:
    """Return a label as the title of a panel."""
    return shortened(label)


def _extent(panels: Sequence[tuple[str, pd.DataFrame]], column: str) -> tuple[float, float]:
    values = np.concatenate([table[[column, "low", "high"]].to_numpy(float).ravel() for _, table in panels])
    return float(np.nanmin(values)), float(np.nanmax(values))


def _point(axes: Axes, row: pd.Series, column: str, y: float, style: ArmStyle, filled: bool) -> None:
    axes.plot([row["low"], row["high"]], [y, y], color=style.color, linewidth=1.8, solid_capstyle="butt")
    axes.plot(
        row[column], y, marker=style.marker, color=style.color, markersize=6, markeredgewidth=1.6,
        markerfacecolor=style.color if filled else "none",
    )  # fmt: skip
