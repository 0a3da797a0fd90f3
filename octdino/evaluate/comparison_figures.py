"""Figures of the comparison: forest plots, label efficiency, ROC and precision-recall curves, as SVG."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from octdino.config import EvaluateSettings
from octdino.config.names import CLINICAL
from octdino.data.csv_io import leading_metric, one_seed
from octdino.data.sampling_units import Unit
from octdino.evaluate.classifier_runs import Run
from octdino.evaluate.comparable_runs import TestSet
from octdino.evaluate.curve_figures import CURVES, plot_curves, plot_pr, plot_roc
from octdino.evaluate.forest_figures import LEAST_SPAN, plot_differences, plot_scores, share_of
from octdino.evaluate.leading_arms import by_family, leaders, panel_backbones, row_order, shown_beside
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
from octdino.stats.significance import alpha


def plot_comparison_figures(
    settings: EvaluateSettings,
    test: TestSet,
    runs: list[Run],
    metrics: pd.DataFrame,
    comparison: pd.DataFrame,
    pretrained: Mapping[str, str],
    out: Path,
) -> None:
    """Write comparison.svg, difference.svg, label_efficiency.svg, roc.svg and pr.svg to `out`.

    The curves are of the predictions, the others of the two tables. A figure without numbers is a sentence instead.

    Args:
        pretrained: the method of each pretraining run, by which arms are grouped.
    """
    metric, words = leading_metric(metrics)
    macro = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == metric)])
    macro = macro[macro["value"].notna()]
    if macro.empty:
        for name in ("comparison", "difference", "label_efficiency", "roc", "pr"):
            save_notice(f"Nothing to plot: no {test.words.label} is evaluable.", out / f"{name}.svg")
        return
    paired = comparison[(comparison["label"] == "macro") & (comparison["metric"] == metric)]
    paired = one_seed(paired[paired["reference"] == settings.reference])
    styles = arm_styles(sorted({run.key.arm for run in runs}))
    patients = {run.key.fraction: run.n_train_patients for run in runs}
    with figure_style():
        scored = set(zip(macro["arm"], macro["backbone"], strict=True))
        rows = by_family([row for row in row_order(metrics) if row in scored], pretrained)
        _plot_forests(settings, test, macro, paired, rows, styles, words, patients, out)
        _plot_efficiency(test, macro, words, styles, patients, out / "label_efficiency.svg")
        _plot_curves(settings, test, runs, metrics, styles, out)


def _plot_forests(
    settings: EvaluateSettings, test: TestSet, macro: pd.DataFrame, paired: pd.DataFrame, rows: list[tuple[str, str]],
    styles: dict[str, ArmStyle], words: str, patients: dict[float, int | None], out: Path,
) -> None:  # fmt: skip
    fractions = sorted(set(macro["fraction"]))
    titles = [share_of(fraction, patients.get(fraction), test.unit) for fraction in fractions]
    share = f"{100 * settings.confidence:g} % intervals over {test.unit.many}"
    scores = [macro[macro["fraction"] == fraction] for fraction in fractions]
    capital = words[0].upper() + words[1:]
    save_svg(
        plot_scores(list(zip(titles, scores, strict=True)), rows, styles, f"{words}\n{share}"),
        out / "comparison.svg",
        f"{capital} of every arm at every fraction, with intervals; the numbers are in metrics.csv",
    )
    if paired.empty:
        alone = f"No other arm was run with {settings.reference}, so there are no paired differences."
        save_notice(alone, out / "difference.svg")
        return
    missing = {row: "reference" for row in rows if row[0] == settings.reference}
    missing |= {row: "not compared" for row in rows if row[0] == CLINICAL}
    gaps = [paired[paired["fraction"] == fraction] for fraction in fractions]
    level = alpha(settings.confidence)
    save_svg(
        plot_differences(
            list(zip(titles, gaps, strict=True)), rows, styles, f"{words} minus {settings.reference}'s\n{share}",
            missing, level,
        ),
        out / "difference.svg",
        f"Paired difference of {words} to {settings.reference}; the numbers are in comparison.csv",
    )  # fmt: skip


def _plot_efficiency(
    test: TestSet, macro: pd.DataFrame, words: str, styles: dict[str, ArmStyle], patients: dict[float, int | None],
    path: Path,
) -> None:  # fmt: skip
    fractions = sorted(set(macro["fraction"]))
    if len(fractions) == 1:
        share = share_of(fractions[0], patients.get(fractions[0]), test.unit).replace("\n", " ")
        save_notice(f"All arms were trained on {share}, so there is no curve of label efficiency.", path)
        return
    save_svg(
        plot_label_efficiency(macro, words, styles, patients, test.unit),
        path,
        f"{words[0].upper() + words[1:]} against the number of labeled training {test.unit.many}, one line per arm, "
        "with intervals",
    )


def _plot_curves(
    settings: EvaluateSettings, test: TestSet, runs: list[Run], metrics: pd.DataFrame, styles: dict[str, ArmStyle],
    out: Path,
) -> None:  # fmt: skip
    largest = max(run.key.fraction for run in runs)
    last = [run for run in runs if run.key.fraction == largest]
    last = [run for run in last if run.key.seed == min(other.key.seed or 0 for other in last)]
    order = list(dict.fromkeys(arm for arm, _ in leaders(metrics, settings.reference)))[:CURVES]
    shown = [run for run in last if run.key.arm in order]
    for name, curve, words in (("roc", plot_roc, "ROC"), ("pr", plot_pr, "Precision-recall")):
        save_svg(
            plot_curves(test, shown, styles, curve),
            out / f"{name}.svg",
            f"{words} curves of the leading arms, one panel per {test.words.label}, trained on fraction {largest:g}",
        )


def plot_label_efficiency(
    table: pd.DataFrame, words: str, styles: dict[str, ArmStyle], patients: dict[float, int | None], unit: Unit
) -> Figure:
    """Plot the leading metric against labeled training patients, one panel per backbone; arms are offset.

    Args:
        table: at least two fractions.
    """
    backbones = panel_backbones(zip(table["arm"], table["backbone"], strict=True))
    down, across = math.ceil(len(backbones) / 2), min(len(backbones), 2)
    arms = table["arm"].nunique()
    height = max(2.6, LABEL_HEIGHT * arms) + 0.7
    figure = Figure(figsize=(2 * WIDTH, height * down))
    cells = list(figure.subplots(down, across, squeeze=False, sharey=True, sharex=True).ravel())
    for axes in cells[len(backbones) :]:
        axes.set_visible(False)
    known = all(patients.get(fraction) for fraction in table["fraction"])
    labeled = []
    for axes, backbone in zip(cells, backbones, strict=False):
        rows = table[shown_beside(table, backbone)]
        labeled.append((axes, _plot_lines(axes, rows, styles, patients if known else {})))
        fraction_axis(axes, sorted(set(table["fraction"])), patients if known else {})
        axes.set_title(f"{words}{f', {backbone}' if len(backbones) > 1 else ''}")
        axes.set_xlabel(f"labeled training {unit.many}", loc="left")
        axes.tick_params(labelbottom=True, labelleft=True)
    values = table[["value", "low", "high"]].to_numpy(float)
    cells[0].set_ylim(wide_enough(float(np.nanmin(values)), float(np.nanmax(values)), LEAST_SPAN, ceiling=1.015))
    cells[0].yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    label_line_ends(figure, labeled)
    return figure


def _plot_lines(
    axes: Axes, rows: pd.DataFrame, styles: dict[str, ArmStyle], patients: dict[float, int | None]
) -> list[LineEnd]:
    """Plot one line per arm; return the last point of each."""
    ends = []
    arms = sorted(rows["arm"].unique())
    for index, arm in enumerate(arms):
        line = rows[rows["arm"] == arm].sort_values("fraction")
        shift = 1 + 0.2 / max(len(arms), 10) * (index - (len(arms) - 1) / 2)
        places = np.array([(patients.get(f) or f) for f in line["fraction"]], float) * shift
        style = styles[arm]
        axes.plot(
            places, line["value"], color=style.color, linestyle=style.dash, marker=style.marker, markersize=4.5,
            label=arm,
        )  # fmt: skip
        axes.vlines(places, line["low"], line["high"], color=style.color, linewidth=1, alpha=0.55)
        ends.append(LineEnd(float(places[-1]), float(line["value"].iloc[-1]), str(arm), style.color))
    return ends


def fraction_axis(axes: Axes, fractions: list[float], patients: dict[float, int | None]) -> None:
    """Set a logarithmic axis with one tick per fraction, with the number of patients where it is known."""
    places = [float(patients.get(fraction) or fraction) for fraction in fractions]
    names = [
        f"{patients[f]}\n{100 * f:g} %" if patients.get(f) else f"{100 * f:g} %" for f in fractions
    ]  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([name if keep else "" for name, keep in zip(names, apart(places), strict=True)])


def apart(places: list[float], least: float = 0.11) -> list[bool]:
    """Return which ascending ticks of a logarithmic axis keep their labels so that none overlap."""
    width = math.log(places[-1] / places[0]) or 1.0
    shown, right = [], math.inf
    for place in reversed(places):
        keep = math.log(place) <= right - least * width
        right = math.log(place) if keep else right
        shown.append(keep)
    return shown[::-1]
