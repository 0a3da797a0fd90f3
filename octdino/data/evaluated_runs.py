"""Which trained classifiers the last evaluation contains; folders of an earlier configuration stay beside them.

metrics.csv has the arm, backbone, fraction and seed of each classifier, and "pooled" in place of its folds; splits.csv
has the folds. Together they distinguish a stale seed (`classify.seeds` was changed) and a stale fold (a
cross-validation became one split, or has fewer folds) from what was evaluated.
"""

from collections.abc import Set
from pathlib import Path
from typing import NamedTuple, Self

import pandas as pd

from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import METRICS, SPLITS
from octdino.data.schemas.metadata import ClassifierMetadata

POOLED = "pooled"  # in place of a fold in metrics.csv: all folds together
DECIMALS = 6  # of a fraction: pandas may read another last bit than was written


class EvaluatedRun(NamedTuple):
    """One trained classifier: one fold and seed of an arm on a backbone at a fraction."""

    arm: str
    backbone: str
    fraction: float
    seed: int
    fold: int

    @classmethod
    def of(cls, metadata: ClassifierMetadata) -> Self:
        """Return the run that a classifier.json is of."""
        fraction = round(metadata.fraction, DECIMALS)
        return cls(metadata.arm, metadata.backbone, fraction, metadata.seed, metadata.fold)


def evaluated_runs(metrics: pd.DataFrame, splits: pd.DataFrame) -> Set[EvaluatedRun]:
    """Return the classifiers that metrics.csv contains, each with its folds.

    Args:
        metrics: metrics.csv; rows without a seed are means over seeds and name no classifier.
        splits: splits.csv; a fold that it lacks is of an earlier division of the patients.
    """
    folds = sorted(map(int, splits["fold"].unique()))
    rows = metrics[metrics["seed"].notna()]
    keys = rows[["arm", "backbone", "fraction", "seed", "fold"]].drop_duplicates()
    return {
        EvaluatedRun(str(arm), str(backbone), round(float(fraction), DECIMALS), int(seed), number)
        for arm, backbone, fraction, seed, fold in keys.itertuples(index=False)
        for number in folds
        if fold in (POOLED, str(number))
    }


def read_evaluated_runs(results: Path) -> Set[EvaluatedRun] | None:
    """Return the classifiers of the last evaluation of results/{cohort}; None where nothing was evaluated.

    Raises:
        UserError: there is a metrics.csv without a splits.csv, or one of them is damaged.
    """
    path = results / "evaluate" / "metrics.csv"
    if not path.is_file():
        return None
    metrics = read_table(path, METRICS)
    if metrics.empty:
        return None
    return evaluated_runs(metrics, read_table(results / "cohort" / "splits.csv", SPLITS))
