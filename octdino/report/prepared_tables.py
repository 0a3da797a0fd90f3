"""The tables of the evaluate stage, filtered once for the whole page: one seed, macro, leading metric, tiers."""

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from octdino.config.names import reference_backbone
from octdino.data.csv_io import leading_metric, one_seed


@dataclass(frozen=True)
class PreparedTables:
    """Parts of metrics.csv and comparison.csv that several sections show.

    Attributes:
        metric, metric_name: the leading metric, and its name in a sentence.
        scores: metrics.csv with one row per classifier, label and metric, see `octdino.data.csv_io.one_seed`.
        macro: `scores` of the mean over labels.
        leading: `macro` of the leading metric.
        comparisons: comparison.csv of the mean over labels in the leading metric, all seeds.
        paired: `comparisons` with one row per fraction, arm, backbone and reference, as in `scores`.
        tiers: tier of each label, by label.
        backbones: names of the backbones, ascending, without that of the clinical baseline.
    """

    metric: str
    metric_name: str
    scores: pd.DataFrame
    macro: pd.DataFrame
    leading: pd.DataFrame
    comparisons: pd.DataFrame
    paired: pd.DataFrame
    tiers: pd.Series
    backbones: list[str]

    @property
    def several_backbones(self) -> bool:
        """Return whether arms have to be told apart by backbone."""
        return len(self.backbones) > 1

    def evaluable(self, labels: list[str]) -> list[str]:
        """Return those of the labels that have numbers."""
        return [label for label in labels if self.tiers.get(label) in ("primary", "exploratory")]


def prepare(metrics: pd.DataFrame, comparison: pd.DataFrame) -> PreparedTables:
    """Filter metrics.csv and comparison.csv for the page."""
    metric, name = leading_metric(metrics)
    scores = one_seed(metrics)
    macro = scores[scores["label"] == "macro"]
    comparisons = comparison[(comparison["label"] == "macro") & (comparison["metric"] == metric)]
    return PreparedTables(
        metric=metric,
        metric_name=name,
        scores=scores,
        macro=macro,
        leading=macro[macro["metric"] == metric],
        comparisons=comparisons,
        paired=one_seed(comparisons),
        tiers=metrics.drop_duplicates("label").set_index("label")["tier"],
        backbones=sorted(set(metrics["backbone"]) - {"none"}),
    )


def beside_reference(
    table: pd.DataFrame, reference: str, known: set[str], compared: set[tuple[str, str]]
) -> pd.DataFrame:
    """Return the rows under the backbone on which they are compared with the reference; `network` is their own.

    `name` is the arm, with its own backbone where several backbones of one arm are compared with the same reference.

    Args:
        known: backbones on which the reference was run.
        compared: arms and backbones that comparison.csv compares with it; others stay under their own backbone.
    """
    rows = list(zip(table["arm"].astype(str), table["backbone"].astype(str), strict=True))
    beside = [reference_backbone(*row, reference, known) if row in compared else row[1] for row in rows]
    networks = Counter((arm, compared_on) for (arm, _), compared_on in set(zip(rows, beside, strict=True)))
    names = [
        f"{arm} on {backbone}" if networks[arm, compared_on] > 1 else arm
        for (arm, backbone), compared_on in zip(rows, beside, strict=True)
    ]
    return table.assign(network=table["backbone"], backbone=beside, name=names)
