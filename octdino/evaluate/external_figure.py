"""Figure of external validation: internal beside external AUROC of each arm, one panel per external cohort."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from octdino.data.csv_io import one_seed
from octdino.data.schemas.csv_schemas import MACRO
from octdino.evaluate.forest_figures import LEAST_SPAN, label_below, plot_forest
from octdino.plotting import ArmStyle, arm_styles, figure_style, save_notice, save_svg, shortened, wide_enough

SHIFT = 0.18  # of a row: internal above, external below


def plot_external(table: pd.DataFrame, path: Path) -> None:
    """Write the figure of the macro AUROC at the largest fraction; a sentence where no label is evaluable.

    Args:
        table: external.csv, whose order of arms is that of the rows.
    """
    shown = table[(table["label"] == MACRO) & (table["metric"] == "auroc")]
    shown = shown[shown["internal"].notna() & shown["external"].notna()]
    if shown.empty:
        save_notice(
            "Nothing to plot: no label has enough patients with and without it in both cohorts to be evaluated.", path
        )
        return
    shown = shown[shown["fraction"] == shown["fraction"].max()]
    panels = [
        (shortened(str(name), 60), one_seed(part)) for name, part in shown.groupby("cohort", sort=False)
    ]  # fmt: skip
    rows = list(dict.fromkeys(zip(shown["arm"].astype(str), shown["backbone"].astype(str), strict=True)))
    styles = arm_styles(sorted(set(shown["arm"])))

    def plot_row(axes: Axes, row: pd.Series, y: float) -> None:
        _point(axes, row, "internal", y - SHIFT, styles[row["arm"]])
        _point(axes, row, "external", y + SHIFT, styles[row["arm"]])

    with figure_style():
        figure, cells = plot_forest(panels, rows, plot_row, {})
        ends = shown[[f"{side}{end}" for side in ("internal", "external") for end in ("", "_low", "_high")]]
        cells[0].set_xlim(wide_enough(float(ends.min().min()), float(ends.max().max()), LEAST_SPAN, ceiling=1.0))
        label_below(figure, cells, "macro AUROC\nhollow: internal test set; filled: external cohort")
        save_svg(
            figure, path,
            "Macro AUROC of every arm on the internal test set and on each external cohort, with intervals; the "
            "numbers are in external.csv",
        )  # fmt: skip


def _point(axes: Axes, row: pd.Series, side: str, y: float, style: ArmStyle) -> None:
    axes.plot([row[f"{side}_low"], row[f"{side}_high"]], [y, y], color=style.color, linewidth=1.5)
    axes.plot(
        row[side], y, marker=style.marker, color=style.color, markersize=5, markeredgewidth=1.4,
        markerfacecolor=style.color if side == "external" else "none",
    )  # fmt: skip
