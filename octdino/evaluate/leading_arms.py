"""Order of the arms in figures: rows of forest plots, and the few arms that curves and subgroups show."""

from collections.abc import Iterable, Mapping

import pandas as pd

from octdino.config.families import family_of, family_rank
from octdino.config.names import has_own_backbone
from octdino.data.csv_io import leading_metric, one_seed
from octdino.plotting import shortened

HEADING = ""  # in place of an arm: the row is the heading of a family, whose name is in place of the backbone
FEW = 3  # arms that are shown where there is no room for all; the reference is among them


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


def by_family(order: list[tuple[str, str]], pretrained: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the rows grouped by family, each family below a heading (HEADING, family), its arms in their order.

    Args:
        pretrained: see `family_of`.
    """
    rows: list[tuple[str, str]] = []
    for arm, backbone in sorted(order, key=lambda row: family_rank(row[0], pretrained)):
        heading = (HEADING, family_of(arm, pretrained))
        if heading not in rows:
            rows.append(heading)
        rows.append((arm, backbone))
    return rows


def row_names(order: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the name of each row: the arm, and the backbone where there are several and the arm does not name it.

    The name of a heading is its words.
    """
    several = len({backbone for arm, backbone in order if arm != HEADING} - {"none"}) > 1
    names = {}
    for arm, backbone in order:
        if arm == HEADING:
            names[arm, backbone] = backbone
        else:
            own = not several or backbone == "none" or has_own_backbone(arm, backbone)
            names[arm, backbone] = shortened(arm if own else f"{arm} · {backbone}")
    return names


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
