"""What the page reads that is damaged: one line with the file."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.data.schemas.metadata import ExplainMetadata
from octdino.errors import UserError
from octdino.report.explain_section import figure_images
from octdino.report.results_reader import read_benchmarks, read_results
from tests.results import write_arm, write_cohort, write_pretraining, write_tables


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("history.csv", b"epoch,loss\n1,low\n", r"history\.csv: row 2: loss is 'low'; expected a number"),
        ("history.csv", b"", r"history\.csv: cannot be read as CSV"),
        ("history.csv", b"\xff\xfe\0", r"history\.csv: cannot be read as CSV"),
        ("backbone.json", b"[]", r"backbone\.json: holds list, expected a JSON object"),
        ("backbone.json", b"\xff", r"backbone\.json: cannot be read: not UTF-8 text"),
    ],
)
def test_a_damaged_pretraining(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    write_cohort(tmp_path / "cohort")
    folder = write_pretraining(tmp_path / "pretrain", "dino")
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=line):
        read_results(tmp_path)


def test_a_figure_and_a_benchmark_that_are_no_text(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort")
    write_pretraining(tmp_path / "pretrain", "dino")
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "roc.svg").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"roc\.svg: cannot be read: not UTF-8 text"):
        read_results(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "cohort.tsv").write_bytes(b"")
    with pytest.raises(UserError, match=r"cohort\.tsv: cannot be read as CSV"):
        read_benchmarks(tmp_path / "benchmarks")
    (tmp_path / "benchmarks" / "cohort.tsv").unlink()
    os.mkfifo(tmp_path / "benchmarks" / "cohort.tsv")
    with pytest.raises(UserError, match=r"cohort\.tsv: no such table"):  # and does not wait
        read_benchmarks(tmp_path / "benchmarks")


def test_a_damaged_map(tmp_path: Path) -> None:
    metadata = ExplainMetadata(
        init="dino", backbone="b", split="test", labels=[], scan_ids=[], n_scans=0, n_patients=0,
        figures=[{"file": "maps.png", "caption": "Maps"}],
    )  # fmt: skip
    (tmp_path / "maps.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"maps\.png: the figure cannot be read: "):
        figure_images(tmp_path, [(tmp_path, metadata)])


def test_a_history_without_a_row(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort")
    folder = write_pretraining(tmp_path / "pretrain", "dino")
    pd.DataFrame({"epoch": [], "loss": []}).astype(float).to_csv(folder / "history.csv", index=False)
    assert read_results(tmp_path).pretraining[0].history.empty


def test_benchmarks_are_summed_by_rule(tmp_path: Path) -> None:
    assert read_benchmarks(tmp_path).empty
    for job, seconds in (("cohort", "12.5"), ("evaluate", "-"), ("pretrain.dino.resnet18.fold0-seed0", "200.0")):
        (tmp_path / f"{job}.tsv").write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:12\t512.5\n")
    table = read_benchmarks(tmp_path)
    assert table["rule"].tolist() == ["cohort", "evaluate", "pretrain"]
    assert table["s"].tolist()[::2] == [12.5, 200.0]
    assert np.isnan(table["s"][1])


@pytest.mark.parametrize(
    ("stale", "current", "folds"),
    [
        ([(0, 0)], [(0, 1)], 1),  # classify.seeds [0] -> [1]
        ([(1, 0), (2, 0)], [(0, 0)], 1),  # crossval -> holdout: the folds of the old division stay
        ([(3, 0)], [(0, 0), (1, 0), (2, 0)], 3),  # fewer folds, which are pooled
    ],
)
def test_seeds_and_folds_that_were_not_evaluated_are_no_results(
    tmp_path: Path, stale: list[tuple[int, int]], current: list[tuple[int, int]], folds: int
) -> None:
    arms = ("scratch-finetune", "dino-linear")
    write_cohort(tmp_path / "cohort", folds=4)
    for arm in arms:
        for fold, seed in stale:
            write_arm(tmp_path / "classify", tmp_path / "cohort", arm, fold=fold, seed=seed)
    write_cohort(tmp_path / "cohort", folds=folds)
    written = [
        write_arm(tmp_path / "classify", tmp_path / "cohort", arm, fold=fold, seed=seed)
        for arm in arms
        for fold, seed in current
    ]
    write_tables(tmp_path, written)
    found = read_results(tmp_path).classifiers
    assert sorted(folder for folder, _ in found) == sorted(written)
