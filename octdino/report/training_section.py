"""Training curves and collapse: one figure per question, one panel per metric, one line per run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from octdino.config import METHODS, Arm
from octdino.data.cohort_words import SCAN_WORDS, Words
from octdino.plotting import (
    INK,
    LABEL_HEIGHT,
    POOL,
    WIDTH,
    LineEnd,
    arm_styles,
    figure_style,
    grid_shape,
    label_line_ends,
    shortened,
    svg,
)
from octdino.report.conclusions import NOTHING
from octdino.report.results_reader import Pretraining
from octdino.report.tables import Cell

LineStyles = dict[str, dict[str, Any]]

METRICS = {
    "teacher_entropy": (
        "teacher entropy / ln K",
        "Entropy of the teacher's output for one {scan} over K prototypes. 1: uniform; 0: one prototype only.",
    ),
    "kl": ("KL teacher to student", "Divergence of the student from the teacher. 0 from early on: a collapse."),
    "mean_entropy": (
        "entropy of the mean / ln K",
        "Entropy of the teacher's mean output over an epoch. Low: all {scans} share a few prototypes, a collapse.",
    ),
    "prototypes_used": (
        "share of prototypes used",
        "Share of the K prototypes that are the first choice of at least one {scan}.",
    ),
    "knn_auroc": ("kNN macro AUROC", "Online evaluation on validation {many}, neighbors among {others}."),
    "knn_accuracy": (
        "kNN accuracy",
        "Online evaluation: share of validation {scans} whose class weighted training neighbors predict.",
    ),
    "loss": ("loss", "Of the method; not comparable between methods."),
    "feature_std": ("feature spread", "1: features vary in all directions; towards 0: they collapse to a point."),
    "rankme": ("RankMe", "Effective rank of the features."),
}
# Figure 7 of Caron et al. 2021 is the first row of `collapse`; it leads the section instead of being drawn twice.
COLLAPSE = ("teacher_entropy", "kl", "mean_entropy", "prototypes_used")
GROUPS = {"learning": ("knn_accuracy", "knn_auroc", "loss"), "features": ("feature_std", "rankme")}
KNN = ("knn_accuracy", "knn_auroc")  # accuracy where labels exclude each other
SHARES = ("teacher_entropy", "mean_entropy")  # plotted as shares of ln K, because K may differ between runs
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))  # tell overlapping lines apart


@dataclass(frozen=True)
class Curves:
    """One figure: its name, its SVG, and name and meaning of each metric in it."""

    name: str
    svg: Markup
    meanings: list[tuple[str, str]]


def training_figures(runs: list[Pretraining], arms: Sequence[str] = (), words: Words = SCAN_WORDS) -> list[Curves]:
    """Return figures of all runs with at least two epochs; see `without_curves` for the others.

    With several backbones there is one panel per backbone, because colors are methods.

    Args:
        arms: those of the other figures, in which a method has the same color.
    """
    runs = [run for run in runs if len(run.history) > 1]
    with_entropy = sum(bool(_line(run, "teacher_entropy").size) for run in runs)
    groups = {"collapse": COLLAPSE, **GROUPS} if with_entropy > 1 else {**GROUPS, "collapse": COLLAPSE}
    styles = _line_styles(runs, arms)
    plotted = {name: [metric for metric in group if _carry(runs, metric)] for name, group in groups.items()}
    return [
        Curves(name, Markup(_plot_figure(name, metrics, runs, styles)), [_meaning(metric, words) for metric in metrics])
        for name, metrics in plotted.items()
        if metrics
    ]


def without_curves(runs: list[Pretraining]) -> list[str]:
    """Return one sentence per run whose history has a single epoch: its values, as one point is no curve."""
    found = []
    for run in runs:
        if len(run.history) != 1:
            continue
        values = [
            f"{METRICS[metric][0]} {line.iloc[0]:.4g}" for metric in METRICS if len(line := _line(run, metric))
        ]  # fmt: skip
        told = ", ".join(values) or "no metric"
        found.append(f"{run.method} · {run.backbone} · {run.run} has one epoch and no curve: {told}.")
    return found


def _meaning(metric: str, words: Words) -> tuple[str, str]:
    """Return name and meaning of a metric in the words of the cohort."""
    name, meaning = METRICS[metric]
    others = f"other patients' {words.scans}" if words.unit.patients else f"other {words.scans}"
    return name, meaning.format(others=others, many=words.unit.many, scan=words.scan, scans=words.scans)


def _line(run: Pretraining, name: str) -> pd.Series:
    """Return a metric by epoch, where it was measured; entropies as shares of ln K."""
    table = run.history
    if name not in table or (name in SHARES and "ln_k" not in table):
        return pd.Series(dtype=float)
    values = table[name] / table["ln_k"] if name in SHARES else table[name]
    return values.set_axis(table["epoch"]).dropna()


def _carry(runs: list[Pretraining], name: str) -> list[Pretraining]:
    return [run for run in runs if _line(run, name).size]


def _plot_figure(name: str, metrics: list[str], runs: list[Pretraining], styles: LineStyles) -> str:
    """Plot one figure, two panels per row; each method is named where its lines end."""
    several = len({run.backbone for run in runs}) > 1
    panels = [
        (metric, backbone)
        for metric in metrics
        for backbone in sorted({run.backbone for run in _carry(runs, metric)})
    ]  # fmt: skip
    down, across = grid_shape(len(panels), 3)
    height = max(1.7, LABEL_HEIGHT * len(styles)) + (0.6 if several else 0.45)
    with figure_style():
        figure = Figure(figsize=(2 * WIDTH, height * down + 0.15))
        grid = list(figure.subplots(down, across, squeeze=False).ravel())
        first: dict[str, Axes] = {}
        ends = []
        for axes, (metric, backbone) in zip(grid, panels, strict=False):
            if (other := first.setdefault(metric, axes)) is not axes:
                axes.sharey(other)
            ends.append((axes, _panel(axes, metric, [run for run in runs if run.backbone == backbone], styles)))
            axes.set_title(METRICS[metric][0] + (f"\n{shortened(backbone)}" if several else ""))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(panels) - across) : len(panels)]:
            axes.set_xlabel("epoch", loc="left")
        for metric, axes in first.items():
            _scale(axes, metric, runs)
        label_line_ends(figure, ends)
        titles = ", ".join(METRICS[metric][0] for metric in metrics)
        return svg(
            figure,
            f"training-{name}",
            f"{titles} per epoch, one line per pretraining run; the numbers are in history.csv",
        )


def _line_styles(runs: list[Pretraining], arms: Sequence[str]) -> LineStyles:
    """Return color and dash of each method; its seeds share them, in thin lines."""
    colors = {Arm.named(arm).init: styles.color for arm, styles in arm_styles(arms).items()}
    taken = set(colors.values())
    free = [color for color in POOL if color not in taken] or list(POOL)
    found: LineStyles = {}
    methods = sorted({run.method for run in runs})
    others = [method for method in methods if method not in colors]
    for index, method in enumerate(methods):
        color = colors[method] if method in colors else free[others.index(method) % len(free)]
        seeds = max(sum(run.backbone == b and run.method == method for run in runs) for b in {r.backbone for r in runs})
        found[method] = {
            "color": color, "linestyle": DASHES[(index + index // len(POOL)) % len(DASHES)], "label": method,
            "linewidth": 1.4 if seeds == 1 else 1.0,
        }  # fmt: skip
    return found


def _panel(axes: Axes, name: str, runs: list[Pretraining], styles: LineStyles) -> list[LineEnd]:
    """Plot one metric of some runs, with floor and ceiling where it is an entropy; return the end of each method."""
    if name in SHARES:
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=":", alpha=0.7)
        axes.annotate(
            "ln K", (1, 1), xycoords=("axes fraction", "data"), xytext=(0, 1.5), textcoords="offset points",
            ha="right", fontsize=7.5,
        )  # fmt: skip
    if name in (*SHARES, "kl"):
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":", alpha=0.7)
    ends: dict[str, LineEnd] = {}
    for run in _carry(runs, name):
        line = _line(run, name)
        axes.plot(line.index, line, marker="." if len(line) < 3 else None, **styles[run.method])
        ends[run.method] = LineEnd(float(line.index[-1]), float(line.iloc[-1]), run.method, styles[run.method]["color"])
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return list(ends.values())


def _scale(axes: Axes, name: str, runs: list[Pretraining]) -> None:
    """Set the axis: shares from 0 to 1; losses on a logarithmic scale where they differ by more than a factor of 8."""
    if name in (*SHARES, "prototypes_used"):
        axes.set_ylim(-0.04, 1.12)
    values = pd.concat([_line(run, name) for run in _carry(runs, name)])
    if name == "loss" and values.min() > 0 and values.max() > 8 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class Alarmed:
    """A run that was collapsed when it ended: its name, the collapse in brief, and the warnings with their remedy."""

    run: str
    brief: str
    alarms: list[str]


def training_alarms(runs: list[Pretraining]) -> list[Alarmed]:
    """Return the runs whose metadata have alarms."""
    found = []
    for run in runs:
        if alarms := [str(alarm) for alarm in run.metadata.get("alarms") or []]:
            brief = ", ".join(alarm.split(":")[0] for alarm in alarms)
            found.append(Alarmed(f"{run.method} · {run.backbone} · {run.run}", brief, alarms))
    return found


HEADS = (
    "method", "backbone", "run", "starts from", "epochs", "exported epoch", "skipped steps", "last kNN",
    "scope", "scans", "patients", "images seen", "images/s", "data wait", "MFU", "device",
)  # fmt: skip


def training_table(runs: list[Pretraining], words: Words = SCAN_WORDS) -> tuple[list[str], list[list[Cell]]]:
    """Return heads and one row per run; skipped steps only if a run skipped one, patients only if they are known."""
    rows = [_row(run) for run in runs]
    left_out = set() if any(run.metadata.get("skipped_steps") for run in runs) else {"skipped steps"}
    left_out |= set() if words.unit.patients else {"patients"}
    kept = [name for name in HEADS if name not in left_out]
    return [words.scans if name == "scans" else name for name in kept], [[row[name] for name in kept] for row in rows]


def _row(run: Pretraining) -> dict[str, Cell]:
    history, metadata = run.history, run.metadata
    rate, wait, use = (_median(history, name) for name in ("images_per_second", "data_wait", "utilisation"))
    knn = next((history[name].dropna() for name in KNN if name in history), pd.Series(dtype=float))
    lengths = metadata.get("epochs") or ([int(history["epoch"].max())] if len(history) else [])
    words = {"backbone": run.backbone, "run": run.run, "scope": metadata.get("scope", NOTHING)}
    words["device"] = metadata.get("device", NOTHING)
    kind = METHODS.get(str(metadata.get("method", {}).get("method")))
    keys = {"scans": "scans", "patients": "patients", "exported epoch": "exported_epoch", "images seen": "images_seen"}
    return {
        **{name: Cell(str(word), sort=str(word)) for name, word in words.items()},
        "method": Cell(run.method, kind.family if kind else "", run.method),
        **{name: _count(metadata.get(key)) for name, key in keys.items()},
        "skipped steps": _count(metadata.get("skipped_steps")),
        "starts from": _start(metadata),
        "epochs": _count(lengths[-1] if lengths else None)._replace(
            small=f"extended after {', '.join(map(str, lengths[:-1]))}" if len(lengths) > 1 else ""
        ),
        "images/s": _count(None if math.isnan(rate) else round(rate)),
        "data wait": _share(wait),
        "MFU": _share(use),
        "last kNN": Cell(f"{knn.iloc[-1]:.3f}", sort=float(knn.iloc[-1])) if len(knn) else _count(None),
    }


def _median(history: pd.DataFrame, name: str) -> float:
    return float(history[name].median()) if name in history else math.nan


def _share(value: float) -> Cell:
    """Return a share in percent: of the step time that waits for images, or of the fastest matrix product (MFU)."""
    return Cell(NOTHING, sort=-math.inf) if math.isnan(value) else Cell(f"{100 * value:.1f} %", sort=value)


def _count(value: Any) -> Cell:
    return Cell(NOTHING, sort=-math.inf) if value is None else Cell(f"{value:,}", sort=float(value))


def _start(metadata: dict[str, Any]) -> Cell:
    """Return the origin of the initial weights; of an earlier run its name, scope and the end of its path."""
    start = metadata.get("start")
    if not start:
        return Cell("random", sort="random")
    folder = PurePath(str(start["from"]))
    name = str(start.get("name") or folder.name)
    if not start.get("name"):
        return Cell(name, sort=name)
    return Cell(name, f"{'/'.join(folder.parts[-3:])}, scope {start.get('scope', NOTHING)}", name)
