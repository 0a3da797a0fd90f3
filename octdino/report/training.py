"""Training and collapse curves: a panel a measure that the histories have, a line a run."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from octdino.figures import INK, WIDTH, looks, style, svg
from octdino.report.answer import NOTHING
from octdino.report.read import Pretraining

MEASURES = {
    "loss": ("loss", "Each method's own; not comparable between methods."),
    "knn_auroc": ("kNN macro AUROC", "Neighbours among other patients' scans, on validation patients: is it learning?"),
    "feature_std": ("feature spread", "1: features fill all directions; towards 0: they collapse to a point."),
    "rankme": ("RankMe", "Effective number of dimensions that the features use."),
    "teacher_entropy": ("teacher entropy", "At ln K (dotted) the teacher says nothing; at 0 it is certain."),
    "mean_entropy": ("entropy of the mean", "Over a batch. Low: all scans share a few prototypes, a collapse."),
    "kl": ("KL teacher to student", "What the student has still to learn. Near 0 from the start: a collapse."),
    "prototypes_used": ("share of prototypes used", "Of the K prototypes, those that some scan prefers."),
}  # fmt: skip


def training_figure(runs: list[Pretraining]) -> tuple[str, list[tuple[str, str]]]:
    """SVG of all runs, and the meaning of each panel shown; two empty things where no run has a history."""
    runs = [run for run in runs if len(run.history)]
    shown = [name for name in MEASURES if any(name in r.history and r.history[name].notna().any() for r in runs)]
    if not shown:
        return "", []
    look = looks(sorted({f"{run.method}-linear" for run in runs}))
    several = len({run.backbone for run in runs}) > 1
    rows = math.ceil(len(shown) / 2)
    with style():
        figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.5))
        grid = figure.subplots(rows, 2, squeeze=False).ravel()
        for axes, name in zip(grid, shown, strict=False):
            for run in runs:
                if name not in run.history:
                    continue
                line = run.history[["epoch", name]].dropna()
                axes.plot(
                    line["epoch"], line[name], color=look[f"{run.method}-linear"].color, linewidth=1.3,
                    marker="." if len(line) < 3 else None,
                    label=f"{run.method}{f' · {run.backbone}' if several else ''}",
                )  # fmt: skip
            if name in ("teacher_entropy", "mean_entropy"):
                for ceiling in {round(float(run.history["ln_k"].iloc[-1]), 6) for run in runs if "ln_k" in run.history}:
                    axes.axhline(ceiling, color=INK, linewidth=0.8, linestyle=":", alpha=0.7)
            axes.set_title(MEASURES[name][0])
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(shown) - 2) : len(shown)]:
            axes.set_xlabel("epoch", loc="left")
        lines = {str(line.get_label()): line for axes in grid for line in axes.lines}
        lines = {label: line for label, line in lines.items() if not label.startswith("_")}
        figure.legend(lines.values(), lines.keys(), loc="outside lower left", ncols=2)
        text = svg(figure, "training", "Loss, kNN score and measures of collapse by epoch, a line a pretraining run")
    return text, [MEASURES[name] for name in shown]


def training_rows(runs: list[Pretraining]) -> list[dict[str, str]]:
    """What each run was: scans and patients seen, epochs, device, speed, last kNN score."""
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
                "knn": f"{knn.iloc[-1]:.3f}" if len(knn) else NOTHING,
            }
        )  # fmt: skip
    return found
