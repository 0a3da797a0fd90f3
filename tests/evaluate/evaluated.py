"""What the tests of the evaluate stage share: settings, names of outputs, look-ups in tables."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

from octdino.config import EvaluateSettings
from octdino.data.csv_io import probability_column, read_table
from octdino.data.schemas.csv_schemas import METRICS

SETTINGS = EvaluateSettings(resamples=100)
FIGURES = ["comparison.svg", "difference.svg", "label_efficiency.svg", "pr.svg", "roc.svg"]
FIGURES += [
    "reliability.svg",
    "calibration.svg",
    "subgroups.svg",
    "labels.svg",
    "label_difference.svg",
    "patients_needed.svg",
]
TABLES = ["metrics.csv", "comparison.csv", "subgroups.csv", "label_efficiency.csv", "power.csv"]


def metrics_of(root: Path) -> pd.DataFrame:
    return read_table(root / "evaluate" / "metrics.csv", METRICS)


def one(table: pd.DataFrame, **values: object) -> pd.Series:
    for name, value in values.items():
        table = table[table[name] == value]
    assert len(table) == 1, table
    return table.iloc[0]


def auroc(table: pd.DataFrame, label: str) -> float:
    known = table[table[label].notna()]
    return float(roc_auc_score(known[label].astype(int), known[probability_column(label)]))


def loop_calibration_error(truth: Iterable[float], p: Iterable[float], bins: int = 10) -> float:
    """Expected calibration error over bins with equal numbers of scans, scan by scan, after its definition.

    Bins are cut at quantiles (linear between scans); a scan at a cut is in the lower bin.
    """
    scans = sorted(zip(p, truth, strict=True))
    cuts = []
    for number in range(1, bins):
        place = number * (len(scans) - 1) / bins
        low, high = scans[math.floor(place)][0], scans[math.ceil(place)][0]
        cuts.append(low + (place - math.floor(place)) * (high - low))
    error = 0.0
    for number in range(bins):
        inside = [scan for scan in scans if sum(cut < scan[0] for cut in cuts) == number]
        if inside:
            share, mean = (sum(scan[k] for scan in inside) / len(inside) for k in (1, 0))
            error += len(inside) / len(scans) * abs(share - mean)
    return error


def edit(path: Path, row: int, column: str, value: object) -> None:
    table = pd.read_csv(path, dtype=object)
    table.loc[row, column] = value
    table.to_csv(path, index=False)
