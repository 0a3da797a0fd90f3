"""Which classifiers an evaluation contains, by metrics.csv and splits.csv written out by hand."""

from pathlib import Path

import pandas as pd
import pytest

from octdino.data.csv_io import write_table
from octdino.data.evaluated_runs import evaluated_runs, read_evaluated_runs
from octdino.data.schemas.csv_schemas import METRICS, SPLITS
from octdino.errors import UserError

DINO = ("dino-linear", "resnet18", 0.3)


def metrics(*rows: tuple[tuple[str, str, float], str, int | None]) -> pd.DataFrame:
    """Return metrics.csv of (arm, backbone, fraction), fold and seed."""
    values = [{"arm": a, "backbone": b, "fraction": f, "fold": fold, "seed": seed} for (a, b, f), fold, seed in rows]
    table = pd.DataFrame(values, columns=METRICS.names)
    return table.astype({"seed": "Int64", "fraction": "Float64", "fold": "string"})


def splits(*folds: int) -> pd.DataFrame:
    """Return splits.csv with one test patient in each fold."""
    values = [{"fold": fold, "patient": "a", "group": "a", "split": "test"} for fold in folds]
    return pd.DataFrame(values, columns=SPLITS.names).astype({"fold": "Int64"})


def test_means_over_seeds_name_no_run() -> None:
    found = evaluated_runs(metrics((DINO, "0", 1), (DINO, "0", 2), (DINO, "0", None)), splits(0))
    assert found == {(*DINO, 1, 0), (*DINO, 2, 0)}


def test_pooled_folds_are_those_of_the_splits() -> None:
    found = evaluated_runs(metrics((DINO, "pooled", 4)), splits(0, 1, 2))
    assert found == {(*DINO, 4, 0), (*DINO, 4, 1), (*DINO, 4, 2)}


def test_a_single_fold_is_the_one_named_and_has_to_be_in_the_splits() -> None:
    assert evaluated_runs(metrics((DINO, "2", 0)), splits(0, 1, 2)) == {(*DINO, 0, 2)}
    assert evaluated_runs(metrics((DINO, "2", 0)), splits(0)) == set()


def test_a_fraction_may_differ_in_its_last_bit() -> None:
    other = ("dino-linear", "resnet18", 0.1 + 0.2)
    assert other[2] != 0.3
    assert evaluated_runs(metrics((other, "0", 0)), splits(0)) == {(*DINO, 0, 0)}


def test_nothing_evaluated_is_none_and_metrics_without_splits_are_named(tmp_path: Path) -> None:
    assert read_evaluated_runs(tmp_path) is None
    (tmp_path / "cohort").mkdir()
    (tmp_path / "evaluate").mkdir()
    write_table(tmp_path / "evaluate" / "metrics.csv", metrics((DINO, "0", 0)), METRICS)
    with pytest.raises(UserError, match=r"splits\.csv: no such table"):
        read_evaluated_runs(tmp_path)
    write_table(tmp_path / "cohort" / "splits.csv", splits(0, 1), SPLITS)
    assert read_evaluated_runs(tmp_path) == {(*DINO, 0, 0)}


def test_metrics_without_rows_are_no_evaluation(tmp_path: Path) -> None:
    (tmp_path / "evaluate").mkdir()
    write_table(tmp_path / "evaluate" / "metrics.csv", metrics(), METRICS)
    assert read_evaluated_runs(tmp_path) is None
