"""External cohorts in the workflow: what reruns, mistakes before any job, and one real run from nothing to the page."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import EXTERNAL, FINDINGS, MANIFEST
from tests.workflow.conftest import FEW, Workflow
from tests.workflow.test_end_to_end import TINY

COMPARED = {"external": 1, "report": 1}
AUDITED = {"audit": 1, "verdict": 1}


def site(name: str, seed: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "cohort": {"name": "phantom", "phantom": {"seed": seed, "patients": 8}}, **more}


def configured(*sites: dict[str, Any], **evaluate: Any) -> dict[str, Any]:
    return {**FEW, "evaluate": {"external": list(sites), **evaluate}}


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A finished run with one external cohort, by the stub."""
    flow = Workflow(tmp_path_factory.mktemp("external"), stub=True)
    flow.configure(configured(site("b", 1)))
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    return flow


CASES = {
    "nothing": (configured(site("b", 1)), {}),
    "files of the external cohort": (
        configured(site("b", 2)),
        {"external_phantom": 1, "external_cohort": 1, "score": 2, **AUDITED, **COMPARED},
    ),
    "a label map": (configured(site("b", 1, labels={"DRT/ME": None})), COMPARED),
    "another external cohort": (
        configured(site("b", 1), site("c", 2)),
        {"external_phantom": 1, "external_cohort": 1, "score": 2, **AUDITED, **COMPARED},
    ),
    "none any more": (FEW, {**AUDITED, "report": 1}),
    "a difference of interest between arms": (
        configured(site("b", 1), relevant_difference=0.05),
        {"evaluate": 1, "inference": 1, "report": 1},
    ),
    "resamples": (configured(site("b", 1), resamples=200), {"evaluate": 1, "inference": 1, **COMPARED}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_edit_of_an_external_cohort_reruns_nothing_else(case: str, stubbed: Workflow) -> None:
    values, expected = CASES[case]
    stubbed.configure(values)
    assert stubbed.rules() == Counter(expected)


def test_commands_have_the_internal_image_settings_and_all_patients_are_test(stubbed: Workflow) -> None:
    calls = (stubbed.folder / "calls.txt").read_text().splitlines()
    read = [call for call in calls if call.startswith("cohort ")]
    own, other = sorted(read, key=lambda call: "--test-only" in call)
    assert "--test-only" not in own
    assert '"title": "b"' in other
    assert own.partition('"image"')[2].partition("}")[0] == other.partition('"image"')[2].partition("}")[0]
    assert sum(call.startswith("score ") for call in calls) == 2  # not the clinical baseline
    audit = next(call for call in calls if call.startswith("audit "))
    assert audit.endswith("--external results/phantom/external/b")


@pytest.mark.parametrize(
    ("external", "words"),
    [
        (site("b", 0), "the phantom of seed 0 is the cohort that the arms are trained on"),
        (site("phantom", 1), "is the internal cohort; expected another name"),
        (site("b", 1, labels={"AMD": "DRIL"}), "'AMD' is no label of the external cohort b"),
        (site("b", 1, labels={"DRIL": ["CNV"]}), "'CNV' is no label of phantom"),
        ({"name": "b", "cohort": {"name": "folder", "root": "nowhere"}}, "cohort.root: no such folder"),
        (site("a/b", 1), "'a/b' is no folder name"),
    ],
)
def test_a_mistake_is_one_line_before_any_job(external: dict[str, Any], words: str, tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    flow.configure(configured(external))
    done = flow.run("--cores", "1")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "calls.txt").exists()


@pytest.mark.slow  # a minute
def test_a_real_run_compares_both_cohorts_on_the_page(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=False)
    values: dict[str, Any] = copy.deepcopy(TINY)
    values["classify"]["fractions"] = [1.0]
    values["explain"]["inits"] = []
    phantom = {"seed": 3, "patients": 10, "visits": 2, "slices": 2, "difficulty": 0.9}
    labels = {"Fluid (IRF)": ["Fluid (IRF)", "Fluid (SRF)"], "VMT": None}
    values["evaluate"]["external"] = [
        {"name": "b", "cohort": {"name": "phantom", "phantom": phantom}, "labels": labels}
    ]  # fmt: skip
    flow.configure(values)
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    results = tmp_path / "results/phantom"
    manifest = read_table(results / "external/b/cohort/manifest.csv", MANIFEST)
    assert set(manifest["split"]) == {"test"}
    table = read_table(results / "evaluate/external.csv", EXTERNAL)
    assert set(table["arm"]) == {"scratch-finetune", "dino-linear"}
    assert "VMT" not in set(table["label"])
    assert read_table(results / "audit/findings.csv", FINDINGS)["check"].tolist().count("external") == 0
    page = (results / "report/report.html").read_text()
    assert '<section id="external">' in page
    assert "Fluid (IRF): Fluid (IRF) or Fluid (SRF)" in page
    assert not flow.rules()
