"""Label efficiency and power in sentences: the numbers of the files, bounds as bounds, and what is not shown."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from octdino.data.csv_io import read_table
from octdino.data.schemas.evaluate_schemas import LABEL_EFFICIENCY, POWER
from octdino.report.efficiency_section import efficiency_section, power_section, rounded
from octdino.report.results_reader import Results, read_results
from tests.report.test_report import render
from tests.results import make_results

ARMS = ("scratch-finetune", "dino-linear", "simclr-linear")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results") / "phantom", ARMS)


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return read_results(root)


def with_row(results: Results, **values: object) -> Results:
    """The results with one row of label efficiency: 30 patients of dino-linear equal 110 [70, 190]."""
    row = {
        "arm": "dino-linear", "backbone": "resnet18", "fraction": 0.1, "reference": "scratch-finetune",
        "reference_backbone": "resnet18",
        "n_train_patients": 30, "value": 0.8, "reference_patients": 110.2, "reference_is": "equal", "low": 70.4,
        "low_is": "equal", "high": 190.0, "high_is": "equal", **values,
    }  # fmt: skip
    table = pd.DataFrame([{name: row.get(name) for name in LABEL_EFFICIENCY.names}])
    return replace(results, label_efficiency=table)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "with 110 [70, 190]: macro AUROC 0.800."),
        ({"high": 210, "high_is": "more than"}, "with 110 [70, more than 210]: macro AUROC 0.800."),
        (
            {"reference_patients": 210, "reference_is": "more than", "high": 210, "high_is": "more than"},
            "with more than 210 [70, more than 210]: macro AUROC 0.800.",
        ),
        ({"low": 21, "low_is": "fewer than"}, "[fewer than 21, 190]: macro AUROC 0.800; the interval does not exclude"),
        ({"low": 29.0}, "with 110 [29, 190]: macro AUROC 0.800; the interval does not exclude 30, so no saving"),
        (
            {"reference_patients": 24, "low": 21, "low_is": "fewer than", "high": 28},
            "with 24 [fewer than 21, 28]: macro AUROC 0.800; scratch-finetune needs fewer patients.",
        ),
    ],
)
def test_a_sentence_has_numbers_bounds_and_what_is_shown(
    results: Results, values: dict[str, object], words: str
) -> None:
    (sentence,) = efficiency_section(with_row(results, **values))["sentences"]
    assert sentence.startswith("dino-linear with 30 labeled patients (10 %) equals scratch-finetune with ")
    assert words in sentence


def test_the_page_has_the_section_with_every_arm(root: Path, results: Results) -> None:
    text, page = render(root, examples=0)
    section = text[text.index('<section id="efficiency">') : text.index('<section id="labels">')]
    table = read_table(root / "evaluate/label_efficiency.csv", LABEL_EFFICIENCY)
    assert len(table) == 4
    assert section.count("<li>") == 2
    for arm in ("dino-linear", "simclr-linear"):
        assert f"<li>{arm} with 9 labeled patients (30 %) equals scratch-finetune with" in section
    assert "was trained at two shares only" in section
    assert section.count("evaluate/label_efficiency.csv") >= 2
    assert "Labeled training patients with which scratch-finetune reaches" in page.text
    assert "Label efficiency is the number of labeled training patients with which scratch-finetune" in page.text


def test_the_page_says_how_many_test_patients_a_difference_needs(root: Path, results: Results) -> None:
    section = power_section(results, "scratch-finetune")
    table = read_table(root / "evaluate/power.csv", POWER)
    last = table[(table["reference"] == "scratch-finetune") & (table["fraction"] == 1.0)].set_index("arm")
    (sentence,) = section["sentences"]
    assert sentence.startswith("A difference of 0.02 in macro AUROC to scratch-finetune would need about ")
    assert "there are 20, with a power of" in sentence
    for arm, row in last.iterrows():
        assert f"{rounded(float(row['n_needed']))} ({arm})" in sentence
    assert f"up to {rounded(float(last['n_needed_adjusted'].max()))} where Holm adjusts for 2 arms" in sentence
    assert sentence in render(root, examples=0)[1].text
    assert [rounded(value) for value in (33.2, 341.0, 1201.0, 99.5)] == ["34", "350", "1,300", "100"]


def test_results_of_an_earlier_version_have_neither_section(results: Results) -> None:
    bare = replace(results, label_efficiency=results.label_efficiency.iloc[:0], power=results.power.iloc[:0])
    assert efficiency_section(bare) == {}
    assert power_section(bare, "scratch-finetune") == {}


def test_an_arm_of_published_weights_is_named_without_its_backbone_and_the_reference_with_its_own(
    results: Results,
) -> None:
    row = {"arm": "retfound-linear", "backbone": "retfound", "reference_backbone": "resnet18"}
    scored = results.metrics[results.metrics["arm"] == "dino-linear"].assign(arm=row["arm"], backbone=row["backbone"])
    several = replace(results, metrics=pd.concat([results.metrics, scored]))
    (sentence,) = efficiency_section(with_row(several, **row))["sentences"]
    assert sentence.startswith(
        "retfound-linear with 30 labeled patients (10 %) equals scratch-finetune on resnet18 with 110 [70, 190]"
    )
