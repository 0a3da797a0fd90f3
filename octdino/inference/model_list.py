"""The list of trained classifiers of a results folder, as text for a terminal."""

from pathlib import Path

import pandas as pd

from octdino.data.csv_io import leading_metric, read_table
from octdino.data.schemas.csv_schemas import METRICS
from octdino.inference.trained_runs import TrainedRun, Wanted, choose, mean_scores

STALE = "old"
MEANING = f"{STALE}: classifiers of an earlier configuration, which the last evaluation does not contain\n"


def list_models(results: Path, runs: list[TrainedRun]) -> str:
    """Return one line per arm, backbone and fraction: validation score, test score with interval, number of runs.

    The best on validation patients at the largest fraction, which `octdino models --out` writes, is marked with *.
    Runs that the last evaluation does not contain have lines of their own at the end, marked as old.
    """
    best = choose(runs, Wanted())
    path = results / "evaluate" / "metrics.csv"
    metrics = read_table(path, METRICS) if path.is_file() else pd.DataFrame(columns=METRICS.names)
    metric, name = leading_metric(metrics)
    rows = []
    for compared in (True, False):
        part = [run for run in runs if run.compared == compared]
        ranked = sorted(
            mean_scores(part).items(), key=lambda item: (-item[0][2], -item[1] if item[1] == item[1] else 2.0)
        )
        rows += [
            {
                "": "*" if (key, compared) == (best.key, best.compared) else "" if compared else STALE,
                "arm": key[0],
                "backbone": key[1],
                "fraction": f"{key[2]:g}",
                "validation": f"{score:.3f}",
                f"test {name}": _test_score(metrics, key, metric) if compared else "",
                "runs": sum(run.key == key for run in part),
            }
            for key, score in ranked
        ]
    stale = any(row[""] == STALE for row in rows)
    return pd.DataFrame(rows).to_string(index=False) + "\n" + (MEANING if stale else "")


def _test_score(metrics: pd.DataFrame, key: tuple[str, str, float], metric: str) -> str:
    """Macro value and interval, over all seeds where there are several; empty where it was not evaluated."""
    own = metrics[
        (metrics["arm"] == key[0]) & (metrics["backbone"] == key[1]) & (metrics["fraction"] == key[2])
        & (metrics["label"] == "macro") & (metrics["metric"] == metric) & metrics["value"].notna()
    ]  # fmt: skip
    own = own[own["seed"].isna()] if own["seed"].isna().any() else own
    if own.empty:
        return ""
    row = own.iloc[0]
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
