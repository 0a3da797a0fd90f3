"""Training and collapse curves: a panel a measure that the histories have, a line a run."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from octdino.figures import INK, WIDTH, looks, style, svg
from octdino.report.answer import NOTHING
from octdino.report.read import Pretraining

MEASURES = {
    "knn_auroc": ("kNN macro AUROC", "Neighbours among other patients' scans, on validation patients: is it learning?"),
    "loss": ("loss", "Each method's own; not comparable between methods."),
    # Side by side they are figure 7 of Caron et al. 2021, where the runs are those of config/collapse.yaml.
    "teacher_entropy": ("teacher entropy", "At ln K (dotted) the teacher says nothing; at 0 it is certain."),
    "kl": ("KL teacher to student", "What the student has still to learn. Near 0 from the start: a collapse."),
    "mean_entropy": ("entropy of the mean", "Over an epoch. Low: all scans share a few prototypes, a collapse."),
    "prototypes_used": ("share of prototypes used", "Of the K prototypes, those that some scan prefers."),
    "feature_std": ("feature spread", "1: features fill all directions; towards 0: they collapse to a point."),
    "rankme": ("RankMe", "Effective number of dimensions that the features use."),
}  # fmt: skip
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))  # where there are more methods than colours


def training_figure(runs: list[Pretraining]) -> tuple[str, list[tuple[str, str]]]:
    """SVG of all runs, and the meaning of each panel shown; two empty things where no run has a history.

    One backbone: two measures beside each other. Several: a row a measure, a column a backbone, so that colours mean
    methods.
    """
    runs = [run for run in runs if len(run.history)]
    shown = [name for name in MEASURES if any(name in r.history and r.history[name].notna().any() for r in runs)]
    if not shown:
        return "", []
    backbones = sorted({run.backbone for run in runs})
    panels = [(name, backbone) for name in shown for backbone in backbones]
    columns = max(2, len(backbones)) if len(backbones) > 1 or len(shown) > 1 else 1
    rows = math.ceil(len(panels) / columns)
    look = _styles(runs)
    with style():
        figure = Figure(figsize=(WIDTH * columns / 2, 1.75 * rows + 0.5 + 0.1 * len(look)))
        grid = figure.subplots(rows, columns, squeeze=False, sharey="row" if len(backbones) > 1 else "none").ravel()
        for axes, (name, backbone) in zip(grid, panels, strict=False):
            _panel(axes, name, [run for run in runs if run.backbone == backbone], look)
            axes.set_title(MEASURES[name][0] + (f", {backbone}" if len(backbones) > 1 else ""))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel("epoch", loc="left")
        lines = {str(line.get_label()): line for axes in grid for line in axes.lines}
        lines = {label: lines[label] for label in sorted(lines) if not label.startswith("_")}
        figure.legend(lines.values(), lines.keys(), loc="outside lower left", ncols=2)
        text = svg(figure, "training", "kNN score, loss and measures of collapse by epoch, a line a pretraining run")
    return text, [MEASURES[name] for name in shown]


def _styles(runs: list[Pretraining]) -> dict[str, dict[str, Any]]:
    """Colour and dash of each method; seeds share them."""
    methods = sorted({run.method for run in runs})
    look = looks([f"{method}-linear" for method in methods])
    taken: dict[str, int] = {}
    found = {}
    for method in methods:
        color = look[f"{method}-linear"].color
        found[method] = {"color": color, "linestyle": DASHES[taken.get(color, 0) % len(DASHES)], "label": method}
        taken[color] = taken.get(color, 0) + 1
    return found


def _panel(axes: Axes, name: str, runs: list[Pretraining], look: dict[str, dict[str, Any]]) -> None:
    """One measure of some runs, with its ceiling where it is an entropy."""
    for run in runs:
        if name in run.history:
            line = run.history[["epoch", name]].dropna()
            axes.plot(
                line["epoch"], line[name], linewidth=1.3, marker="." if len(line) < 3 else None, **look[run.method]
            )
    if name in ("teacher_entropy", "mean_entropy"):
        for ceiling in {round(float(run.history["ln_k"].iloc[-1]), 6) for run in runs if "ln_k" in run.history}:
            axes.axhline(ceiling, color=INK, linewidth=0.8, linestyle=":", alpha=0.7)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def training_alarms(runs: list[Pretraining]) -> list[str]:
    """Runs that sat in a collapse when they ended, with the remedy."""
    return [
        f"{run.method} · {run.backbone} · {run.run}: {alarm}" for run in runs for alarm in run.card.get("alarms") or []
    ]


def training_rows(runs: list[Pretraining]) -> list[dict[str, str]]:
    """What each run was: where it started, scans and patients seen, epochs, device, speed, last kNN score."""
    found = []
    for run in runs:
        history, card = run.history, run.card
        rate = history["images_per_second"].median() if "images_per_second" in history else float("nan")
        knn = history["knn_auroc"].dropna() if "knn_auroc" in history else pd.Series(dtype=float)
        found.append(
            {
                "method": run.method, "backbone": run.backbone, "run": run.run,
                "scope": str(card.get("scope", NOTHING)), "scans": str(card.get("scans", NOTHING)),
                "patients": str(card.get("patients", NOTHING)),
                "epochs": str(int(history["epoch"].max())) if len(history) else NOTHING,
                "images": f"{card['images_seen']:,}" if isinstance(card.get("images_seen"), int) else NOTHING,
                "rate": NOTHING if math.isnan(rate) else f"{rate:,.0f}", "device": str(card.get("device", NOTHING)),
                "knn": f"{knn.iloc[-1]:.3f}" if len(knn) else NOTHING, "start": _start(card),
                "exported": str(card.get("exported_epoch", NOTHING)),
                "skipped": str(card.get("skipped_steps", NOTHING)),
            }
        )  # fmt: skip
    return found


def _start(card: dict[str, Any]) -> str:
    """Where the first weights were from; an earlier run with what it had seen."""
    start = card.get("start")
    if not start:
        return "random"
    return f"{start['name']} (scope {start['scope']})" if start.get("name") else str(start["from"])
