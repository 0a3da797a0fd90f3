"""ROC and precision-recall curves: one panel per label, one curve per arm."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from octdino.config.names import has_own_backbone
from octdino.evaluate.classifier_runs import Run
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.leading_arms import panel_backbones
from octdino.plotting import INK, WIDTH, ArmStyle, grid_shape, shortened
from octdino.stats.ranking import precision_recall_curve, roc_curve

CURVES = 5  # at most in one panel: more cannot be told apart

PlotCurve = Callable[[Axes, np.ndarray, np.ndarray, ArmStyle], None]


def plot_curves(test: TestSet, runs: list[Run], styles: dict[str, ArmStyle], curve: PlotCurve) -> Figure:
    """Return a figure with one panel per label and backbone; the key of the arms fills an empty cell if there is one.

    Args:
        runs: at least one, of at least one evaluable label.
    """
    backbones = panel_backbones((run.key.arm, run.key.backbone) for run in runs)
    panels = [(index, backbone) for backbone in backbones for index in np.flatnonzero(test.evaluable)]
    down, across = (1, 2) if len(panels) == 1 else grid_shape(len(panels))
    figure = Figure(figsize=(WIDTH * (1 if across == 2 else 2), (2.3 if across == 2 else 2.5) * down + 0.3))
    grid = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes, (index, backbone) in zip(grid, panels, strict=False):
        known = ~np.isnan(test.truth[:, index])
        truth = test.truth[known, index] == 1
        for run in runs:
            if run.key.backbone in (backbone, "none") or has_own_backbone(run.key.arm, run.key.backbone):
                curve(axes, truth, run.probabilities[known, index], styles[run.key.arm])
                axes.lines[-1].set_label(run.key.arm)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        name = shortened(test.labels[index], 26)
        axes.set_title(f"{name}\n{shortened(backbone, 26)}" if len(backbones) > 1 else name)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _key(figure, grid[len(panels) :])
    return figure


def _key(figure: Figure, empty: list[Axes]) -> None:
    """Add a key with every arm once, also one that only one backbone has."""
    handles: dict[str, Line2D] = {}
    for line in (line for axes in figure.axes for line in axes.lines):
        if not str(line.get_label()).startswith("_"):
            handles.setdefault(shortened(str(line.get_label())), line)
    if empty:
        empty[0].legend(handles.values(), handles.keys(), loc="center left", borderaxespad=0)
    else:
        columns = 2 if figure.get_figwidth() < 1.5 * WIDTH else CURVES
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns)


def plot_roc(axes: Axes, truth: np.ndarray, score: np.ndarray, style: ArmStyle) -> None:
    """Plot one ROC curve, and chance before the first."""
    if not axes.lines:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
        axes.set_xlabel("1 - specificity", loc="left")
        axes.set_ylabel("sensitivity", loc="bottom")
    x, y = roc_curve(truth, score)
    axes.plot(x, y, color=style.color, linestyle=style.dash, linewidth=1.3)


def plot_pr(axes: Axes, truth: np.ndarray, score: np.ndarray, style: ArmStyle) -> None:
    """Plot one precision-recall curve, and the prevalence before the first."""
    if not axes.lines:
        axes.axhline(truth.mean(), color=INK, linewidth=0.7, alpha=0.5, linestyle=":")
        axes.set_xlabel("sensitivity (recall)", loc="left")
        axes.set_ylabel("precision", loc="bottom")
    precision, recall = precision_recall_curve(truth, score)
    axes.step(recall, precision, color=style.color, linestyle=style.dash, linewidth=1.3, where="post")
