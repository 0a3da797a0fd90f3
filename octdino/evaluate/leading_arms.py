"""Order of the arms in figures: rows of forest plots, and the few arms that curves and subgroups show."""

from collections.abc import Iterable

import pandas as pd

from octdino.config.names import has_own_backbone
from octdino.data.csv_io import leading_metric
from octdino.plotting import shortened

FEW = 3  # arms that are shown where there is no room for all; the reference is among them


def one_seed(table: pd.DataFrame) -> pd.DataFrame:
    """Return per classifier the mean over seeds where there are several, else its only seed."""
    keys = ["arm", "backbone", "fraction"]
    return table.sort_values("seed", na_position="first").groupby(keys, as_index=False).head(1).sort_values(keys)


def leaders(metrics: pd.DataFrame, reference: str) -> list[tuple[str, str]]:
    """Return arm and backbone, best first by the leading metric at the largest fraction.

    The reference is among the first three.
    """
    order = row_order(metrics, metrics["fraction"].max())
    others = [one for one in order if one[0] != reference]
    own = [one for one in order if one[0] == reference]
    if len(order) > FEW and own and own[0] not in order[:FEW]:
        order = [*others[: FEW - 1], own[0], *others[FEW - 1 :], *own[1:]]
    return order


def row_order(metrics: pd.DataFrame, least_fraction: float = 0.0) -> list[tuple[str, str]]:
    """Return arm and backbone, best first by the leading metric at the largest fraction of each.

    Args:
        least_fraction: arms without a score at this fraction or a larger one are left out.
    """
    metric, _ = leading_metric(metrics)
    table = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == metric)])
    table = table[table["fraction"] >= least_fraction]
    table = table.sort_values("fraction").drop_duplicates(["arm", "backbone"], keep="last")
    table = table.sort_values(["value", "arm", "backbone"], ascending=[False, True, True])
    return list(zip(table["arm"].astype(str), table["backbone"].astype(str), strict=True))


def row_names(order: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the name of each row: the arm, and the backbone where there are several and the arm does not name it."""
    several = len({backbone for _, backbone in order} - {"none"}) > 1
    return {
        (arm, backbone): shortened(f"{arm} · {backbone}" if several and not own else arm)
        for arm, backbone in order
        for own in [backbone == "none" or has_own_backbone(arm, backbone)]
    }


def panel_backbones(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return the backbones that have a panel of their own; arms with published weights are in the panel of each other.

    Args:
        rows: arm and backbone.
    """
    known = {(arm, backbone) for arm, backbone in rows if backbone != "none"}
    shared = {backbone for arm, backbone in known if not has_own_backbone(arm, backbone)}
    return sorted(shared or {backbone for _, backbone in known}) or ["none"]


def shown_beside(table: pd.DataFrame, backbone: str) -> pd.Series:
    """Return which rows are in a backbone's panel: its own, those without any, and those of published weights."""
    own = [has_own_backbone(arm, its) for arm, its in zip(table["arm"], table["backbone"], strict=True)]
    return table["backbone"].isin([backbone, "none"]) | pd.Series(own, index=table.index, dtype=bool)
