"""`octdino compare`: numbers of the evaluate stage, settings that differ, other patients, and bad folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino import cli
from octdino.data.csv_io import read_table, write_table
from octdino.data.schemas.csv_schemas import COMPARISON, MANIFEST, METRICS, SPLITS
from octdino.data.schemas.evaluate_schemas import SIDE_BY_SIDE
from tests.report.test_report import Page
from tests.results import write_arm, write_cohort, write_pretraining, write_store, write_tables

RESAMPLES = 100


def run_of(root: Path, skills: dict[str, float], seed: int = 0, seeds: tuple[int, ...] = (0,)) -> Path:
    """A finished run: a cohort of 60 patients, one classifier per arm and seed, evaluated."""
    write_cohort(root / "cohort", seed=seed)
    for arm, skill in skills.items():
        for number in seeds:
            write_arm(root / "classify", root / "cohort", arm, seed=number, skill=skill)
    return evaluated(root)


def evaluated(root: Path) -> Path:
    folders = [path.parent for path in root.glob("classify/*/*/*/*/classifier.json")]
    write_tables(root, folders, resamples=RESAMPLES)
    return root


def compared(*folders: Path, out: Path, code: int = 0, interval: str = "percentile") -> tuple[pd.DataFrame, str]:
    words = ["compare", *map(str, folders), "--out", str(out), "--resamples", str(RESAMPLES), "--interval", interval]
    assert cli.main(words) == code
    return (read_table(out.with_suffix(".csv"), SIDE_BY_SIDE), out.read_text()) if not code else (pd.DataFrame(), "")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a") / "first"
    return run_of(root, {"scratch-finetune": 0.6, "dino-linear": 1.0}, seeds=(0, 1))


def as_another_arm(source: Path, target: Path, arm: str, other: str) -> None:
    """Copy the run with the predictions of `arm` as those of `other`, and no other classifier."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "classify")
    shutil.copytree(source / "classify" / arm, target / "classify" / other)
    for path in target.glob("classify/*/*/*/*/classifier.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "arm": other}))
    evaluated(target)


def test_numbers_are_those_of_the_same_pair_within_one_run(first: Path, tmp_path: Path) -> None:
    """A second folder has dino-linear's predictions under another name: the pair of first's comparison.csv."""
    as_another_arm(first, tmp_path / "second", "dino-linear", "scratch-finetune")
    table, _ = compared(first, tmp_path / "second", out=tmp_path / "page.html")
    assert set(table["arm"]) == {"scratch-finetune"}
    assert (table["paired"] == 1).all()
    assert (table["n_seeds"] == 2).all()
    expected = read_table(first / "evaluate/comparison.csv", COMPARISON)
    expected = expected[expected["seed"].isna()].set_index(["label", "metric"])
    found = table.set_index(["label", "metric"]).loc[expected.index]
    assert len(found) == len(table) > 50
    for column in ("difference", "low", "high", "p", "n_resamples"):
        np.testing.assert_allclose(found[column].astype(float), expected[column].astype(float), atol=1e-12)
    metrics = read_table(first / "evaluate/metrics.csv", METRICS)
    metrics = metrics[metrics["seed"].isna()].set_index(["arm", "label", "metric"])
    for arm, names in {"scratch-finetune": "reference_{}", "dino-linear": "value_{}"}.items():
        own = metrics.loc[arm].loc[expected.index]
        np.testing.assert_allclose(found[names.format("low")].astype(float), own["low"].astype(float), atol=1e-12)
        value = names.format("value") if arm.startswith("scratch") else "value"
        np.testing.assert_allclose(found[value].astype(float), own["value"].astype(float), atol=1e-12)


def test_the_same_patients_under_other_names_and_in_another_order_are_paired(first: Path, tmp_path: Path) -> None:
    """A second cohort with the same pixels and labels: other scan ids, patients with new names, rows reversed."""
    second = tmp_path / "second"
    shutil.copytree(first, second)
    names = {"patient": "p-{}", "group": "p-{}", "scan_id": "x_{}"}
    manifest = read_table(second / "cohort/manifest.csv", MANIFEST).iloc[::-1].reset_index(drop=True)
    splits = read_table(second / "cohort/splits.csv", SPLITS)
    for table in (manifest, splits):
        for column in names.keys() & set(table.columns):
            table[column] = [names[column].format(value) for value in table[column]]
    write_table(second / "cohort/manifest.csv", manifest, MANIFEST)
    write_table(second / "cohort/splits.csv", splits, SPLITS)
    for path in second.glob("classify/*/*/*/*/predictions.csv"):
        text = pd.read_csv(path, dtype={"patient": str, "scan_id": str})
        text["patient"], text["scan_id"] = "p-" + text["patient"], "x_" + text["scan_id"]
        text.to_csv(path, index=False)
    table, text = compared(first, second, out=tmp_path / "page.html")
    assert (table["paired"] == 1).all()
    assert (table[["difference", "low", "high"]].astype(float).abs() < 1e-12).all(axis=None)
    assert "the same 20 test patients with the same 120 scans and labels; differences are paired." in text


def test_other_patients_are_unpaired_and_said_so(first: Path, tmp_path: Path) -> None:
    second = run_of(tmp_path / "second", {"scratch-finetune": 0.6, "dino-linear": 1.0}, seed=5)
    manifest = read_table(second / "cohort/manifest.csv", MANIFEST)
    manifest["pixel_hash"] = "other-" + manifest["pixel_hash"]
    write_table(second / "cohort/manifest.csv", manifest, MANIFEST)
    table, text = compared(first, second, out=tmp_path / "page.html")
    assert (table["paired"] == 0).all()
    assert set(table["n_seeds"]) == {1}
    assert set(table["n_reference_seeds"]) == {2}
    assert "second and first have different numbers of seeds (1 and 2)" in text
    assert "not paired, because their test sets differ: 120 of 120 test scans are only in second, 120 of 120" in text
    row = table[(table["arm"] == "dino-linear") & (table["label"] == "macro") & (table["metric"] == "auroc")].iloc[0]
    spread = [row["value_high"] - row["value_low"], row["reference_high"] - row["reference_low"]]
    assert row["high"] - row["low"] == pytest.approx(np.hypot(*spread), rel=0.35)  # variances of independent sets add
    edited = manifest.assign(pixel_hash=manifest["pixel_hash"].str.removeprefix("other-"))
    write_table(second / "cohort/manifest.csv", edited, MANIFEST)
    corrected, text = compared(first, second, out=tmp_path / "page.html", interval="bca")
    assert len(corrected) == len(table)
    assert "not paired, because" in text  # another seed: other patients tested, or other labels


def test_settings_that_differ_are_listed_and_no_others(first: Path, tmp_path: Path) -> None:
    folders = []
    for name, epochs, lr in (("one", 20, 0.001), ("two", 40, 0.001), ("three", 40, 0.01)):
        root = tmp_path / name
        shutil.copytree(first, root)
        path = write_pretraining(root / "pretrain", "dino") / "backbone.json"
        changed = {"method": {"method": "dino", "lr": lr, "momentum": 0.99}}
        changed["settings"] = {"epochs": epochs, "batch_size": 64}
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
        if name != "three":
            write_pretraining(root / "pretrain", "simclr")
        folders.append(root)
        size = 16 if name == "two" else 32
        write_store(root / "cohort", read_table(root / "cohort/manifest.csv", MANIFEST), size=size)
    _, text = compared(*folders, out=tmp_path / "page.html")
    section = text[text.index('<section id="settings">') : text.index('<section id="comparison">')]
    rows = [Page(row).text for row in section.split("<tr>")[2:] for row in [row.split("</tr>")[0]]]
    assert rows == [
        "cohort.image.size [32, 32] [16, 16] [32, 32]",
        "pretrain.epochs 20 40 40",
        "pretrain.lr 0.001 0.001 0.01",
    ]
    assert "Pretraining that not all runs have: one: simclr; two: simclr." in Page(section).text
    (folders[0] / "cohort" / "scans.h5").unlink()
    _, text = compared(*folders, out=tmp_path / "page.html")
    assert "No scans.h5, so settings of the cohort are not compared: one." in text
    assert "cohort.image" not in text


def test_the_page_needs_nothing_else(first: Path, tmp_path: Path) -> None:
    as_another_arm(first, tmp_path / "second", "dino-linear", "scratch-finetune")
    _, text = compared(first, tmp_path / "second", out=tmp_path / "page.html")
    page = Page(text)
    assert {"settings", "comparison", "runs"} <= set(page.ids)
    assert page.sources == []
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == ["page.csv"]
    assert "http" not in text
    assert "scratch-finetune" in page.text


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["first"], "1 results folder; expected at least two to compare"),
        (["first", "first/../first"], "the same folder twice; expected different ones"),
        (["first", "nothing"], "nothing: no cohort/manifest.csv; expected results/{cohort} of a finished run"),
        (["first", "half"], "half: no evaluate/metrics.csv; expected results/{cohort} of a finished run"),
        (["first", "bare"], "bare: no classifier of evaluate/metrics.csv is in classify/; expected a finished run"),
        (["first", "foreign"], "no label that all folders have: "),
    ],
)
def test_a_bad_folder_is_one_line_and_nothing_is_written(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folders: list[str], words: str
) -> None:
    shutil.copytree(first, tmp_path / "first")
    shutil.copytree(first, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "evaluate")
    shutil.copytree(first, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "classify")
    shutil.copytree(tmp_path / "first", tmp_path / "foreign")
    manifest = pd.read_csv(tmp_path / "foreign/cohort/manifest.csv", dtype=str)
    renamed = {"IRF": "A", "DRT/ME": "B", "FAVF": "C", "VMT": "D"}
    manifest.rename(columns=renamed).to_csv(tmp_path / "foreign/cohort/manifest.csv", index=False)
    out = tmp_path / "out" / "page.html"
    compared(*(tmp_path / name for name in folders), out=out, code=2)
    said = capsys.readouterr().err.strip().splitlines()
    assert [line for line in said if words in line] == said[-1:]
    assert said[-1].startswith("octdino compare: error: ")
    assert not list(out.parent.glob("*"))


def test_too_few_resamples_are_a_caution(first: Path, tmp_path: Path) -> None:
    """Three arms: Holm's smallest p of 100 resamples is 3 x 2 / 101, above 0.05."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for root in folders:
        shutil.copytree(first, root)
        write_arm(root / "classify", root / "cohort", "simclr-linear")
        write_arm(root / "classify", root / "cohort", "simclr-linear", seed=1)
        evaluated(root)
    _, text = compared(*folders, out=tmp_path / "page.html")
    assert "Too few resamples: with 100 of them and 3 arms no adjusted p is below 0.059" in text
    _, text = compared(first, folders[0], out=tmp_path / "page.html")
    assert "Too few resamples" not in text


def test_the_page_ends_in_html(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(first, first, out=tmp_path / "page.csv", code=2)
    assert "expected a page that ends in .html" in capsys.readouterr().err
