"""The tables of the evaluate stage, filtered once for the whole page: one seed, macro, leading metric, tiers."""

from dataclasses import dataclass

import pandas as pd

from octdino.data.csv_io import leading_metric

CLINICAL = "clinical"  # the arm of the clinical baseline
KEYS = ["fraction", "arm", "backbone", "label", "metric"]


@dataclass(frozen=True)
class PreparedTables:
    """Parts of metrics.csv and comparison.csv that several sections show.

    Attributes:
        metric, metric_name: the leading metric, and its name in a sentence.
        scores: metrics.csv with one row per KEYS: the mean over seeds where there are several, else the only seed.
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
        paired=one_seed(comparisons, ("reference",)),
        tiers=metrics.drop_duplicates("label").set_index("label")["tier"],
        backbones=sorted(set(metrics["backbone"]) - {"none"}),
    )


def one_seed(table: pd.DataFrame, extra: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return per classifier the mean over seeds where there are several, else its only seed."""
    return table.sort_values("seed", na_position="first").groupby([*KEYS, *extra], as_index=False, sort=True).head(1)
