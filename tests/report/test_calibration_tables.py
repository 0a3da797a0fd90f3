"""Tables of operating points, calibration and subgroups: the numbers of the files, in words and order."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from octdino.data.predictions import read_predictions
from octdino.report.calibration_tables import calibration_table, operating_table, subgroup_table
from octdino.report.conclusions import number
from octdino.report.results_reader import Results, read_results
from tests.results import write_arm, write_cohort, write_tables


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results") / "phantom"
    write_cohort(root / "cohort")
    arms = ("scratch-finetune", "dino-linear", "clinical")
    folders = [write_arm(root / "classify", root / "cohort", arm, f) for arm in arms for f in (0.3, 1.0)]
    write_tables(root, folders)
    return root


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return read_results(root)


def value(results: Results, table: str = "metrics", **where: object) -> float:
    found: pd.DataFrame = getattr(results, table)
    for name, wanted in where.items():
        found = found[found[name] == wanted]
    assert len(found) == 1, where
    return float(found["value"].iloc[0])


def test_operating_points_are_the_files(results: Results) -> None:
    table = operating_table(results)
    assert table["heads"][:4] == ["labels", "arm", "AUROC, weighted", "AP, weighted"]
    assert table["heads"][4:8] == [
        "sensitivity @ 90 % spec.", "specificity reached", "specificity @ 90 % sens.", "sensitivity reached",
    ]  # fmt: skip
    assert [len(row) for row in table["rows"]] == [len(table["heads"])] * 6
    shown = {(row[0].text, row[1].text): [cell.text for cell in row[2:]] for row in table["rows"]}
    where = {"arm": "dino-linear", "fraction": 1.0}
    mine = shown["100 %", "dino-linear"]
    assert mine[0] == number(value(results, **where, label="weighted", metric="auroc"))
    assert mine[2] == number(value(results, **where, label="macro", metric="sensitivity@spec90"))
    assert mine[4] == number(value(results, **where, label="macro", metric="specificity@sens90"))
    assert table["floors"]["prevalence"] == number(value(results, **where, label="macro", metric="prevalence"))


def test_calibration_stands_before_and_after_with_the_temperature(root: Path, results: Results) -> None:
    table = calibration_table(results)
    assert table["heads"][2:5] == ["temperature", "Brier, before", "Brier, after"]
    shown = {(row[0].text, row[1].text): row[2:] for row in table["rows"]}
    card = read_predictions(root / "classify/dino-linear/resnet18/f0.3/fold0-seed0")
    first = shown["30 %", "dino-linear"]
    assert first[0].sort == pytest.approx(card.temperature())
    where = {"arm": "dino-linear", "fraction": 0.3, "label": "macro"}
    assert first[1].text == number(value(results, **where, metric="brier"))
    assert first[2].text == number(value(results, **where, metric="brier_calibrated"))
    order = [row[3].sort for row in table["rows"][:3]]
    assert order == sorted(order)  # the lowest Brier score first


def test_subgroups_keep_their_order_and_mark_the_small(results: Results) -> None:
    table = subgroup_table(results)
    assert table["heads"] == [
        "by",
        "group",
        "patients",
        "scans",
        "biomarkers",
        "clinical",
        "dino-linear",
        "scratch-finetune",
    ]
    groups = [row[1].text for row in table["rows"]]
    assert groups[:3] == ["all", "PRIME", "TREX DME"]
    assert groups[3:6] == ["below 320 µm", "320 to 400 µm", "400 µm or more"]
    assert [row[0].sort for row in table["rows"]] == sorted(row[0].sort for row in table["rows"])
    small = {row[1].text: row[1].small for row in table["rows"]}
    counts = {row[1].text: row[2].sort for row in table["rows"]}
    assert all((small[group] == "small") == (counts[group] < 10) for group in groups)
    where = {"arm": "dino-linear", "group": "PRIME", "label": "macro", "metric": "auroc"}
    assert table["rows"][1][6].text == number(value(results, "subgroups", **where))


def test_results_without_the_new_numbers_show_none(root: Path) -> None:
    """Of a run before they were there."""
    results = read_results(root)
    old = results.metrics[results.metrics["metric"].isin(["auroc", "f1"]) & (results.metrics["label"] != "weighted")]
    bare = replace(results, metrics=old, subgroups=results.subgroups.iloc[:0])
    assert operating_table(bare) == calibration_table(bare) == subgroup_table(bare) == {}
