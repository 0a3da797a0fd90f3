"""External validation on the page, in the checklist, in the methods text and in the data card; absent without it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from octdino.config import Config, EvaluateSettings, ReportSettings
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import FINDINGS
from octdino.evaluate import evaluate  # only tests may join two stages
from octdino.evaluate.external_validation import external_validation
from octdino.report import write_report
from octdino.report.external_section import external_section
from tests.external_results import write_external, write_internal
from tests.report.test_report import Page

SITES = [
    {"name": "b", "cohort": {"name": "phantom", "phantom": {"seed": 9}}, "labels": {"Edema": ["IRF", "DRT/ME"]}},
    {"name": "few", "cohort": {"name": "phantom", "phantom": {"seed": 8}}, "labels": {"Edema": "IRF"}},
]


def config(sites: list[dict[str, Any]]) -> dict[str, Any]:
    return Config.model_validate({"evaluate": {"resamples": 100, "external": sites}}).shown()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    folders = write_internal(root)
    places = [write_external(root, folders), write_external(root, folders, "few", patients=2)]
    settings = EvaluateSettings.model_validate(config(SITES)["evaluate"])
    evaluate(settings, root / "cohort/manifest.csv", folders, root / "evaluate")
    external_validation(settings, root / "cohort/manifest.csv", folders, places, root / "evaluate")
    found = {"check": "external", "where": "external/b", "count": 4, "detail": "x and y: identical pixels"}
    write_table(root / "audit/findings.csv", pd.DataFrame([{**found, "state": "open"}]), FINDINGS)
    return root


def page_of(root: Path, chosen: dict[str, Any], out: Path) -> Page:
    write_report(ReportSettings(), root, chosen, out / "report.html")
    return Page((out / "report.html").read_text())


def test_section_shows_both_sides_maps_and_limits(root: Path, tmp_path: Path) -> None:
    page = page_of(root, config(SITES), tmp_path)
    assert "external" in page.ids
    assert "#external" in page.links
    for words in (
        "180 labeled scans of 30 patients. Tested: Edema: IRF or DRT/ME; FAVF.",
        "For an external label that stands for several internal ones p is 1 minus the product",
        "Not tested, as no internal label is mapped to them: Scar.",
        "2 patients are too few for a validation.",
        "The audit found 4 of its scans in the internal cohort",
        "dino-linear, which leads on the internal test set: AUROC",
    ):
        assert words in page.text, words
    assert (
        "External validation; for the authors: how its patients were chosen" in (tmp_path / "checklist.md").read_text()
    )
    assert "tested on 2 external cohorts" in (tmp_path / "methods.md").read_text()
    assert "## External cohorts" in (tmp_path / "data_card.md").read_text()


def test_numbers_on_the_page_are_those_of_the_table(root: Path) -> None:
    chosen = config(SITES)
    section = external_section(root, chosen, EvaluateSettings.model_validate(chosen["evaluate"]))
    assert section is not None
    table = pd.read_csv(root / "evaluate/external.csv")
    own = table[(table["cohort"] == "b") & (table["label"] == "macro") & (table["metric"] == "auroc")]
    shown = {row[1].text: [cell.sort for cell in row[2:5]] for row in section.cohorts[0].scores}
    assert list(shown) == ["scratch-finetune", "dino-linear"], "as the classifiers were named"
    for _, row in own.iterrows():
        assert shown[row["arm"]] == pytest.approx([row["internal"], row["external"], row["drop"]])
    assert [cell.text for cell in section.cohorts[1].scores[0][2:5]] == ["n/e"] * 3


def test_cohorts_that_are_no_longer_configured_are_not_shown(root: Path, tmp_path: Path) -> None:
    page = page_of(root, config([]), tmp_path)
    assert "external" not in page.ids
    assert "none; for the authors" in (tmp_path / "checklist.md").read_text()
    assert "External" not in (tmp_path / "data_card.md").read_text()
    one = config(SITES[:1])
    section = external_section(root, one, EvaluateSettings.model_validate(one["evaluate"]))
    assert section is not None
    assert [cohort.name for cohort in section.cohorts] == ["b"]
