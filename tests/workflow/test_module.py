"""The workflow as a module of another one, as `snakedeploy deploy-workflow` writes it, with octdino installed."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import FEW, ROOT, Workflow

SNAKEFILE = """\
configfile: "config/config.yaml"


module octdino:
    snakefile:
        "{root}/workflow/Snakefile"
    config:
        config


use rule * from octdino
"""
JOBS = {
    "phantom": 1,
    "cohort": 1,
    "pretrain": 2,
    "embed": 3,
    "classify": 15,
    "clinical": 3,
    "evaluate": 1,
    "explain": 3,
    "audit": 1,
    "report": 1,
    "inference": 1,
    "verdict": 1,
}


@pytest.fixture
def deployed(tmp_path: Path) -> Workflow:
    """A working directory with a copy of config/ and a Snakefile that uses the module."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "workflow").mkdir()
    snakefile = tmp_path / "workflow" / "Snakefile"
    snakefile.write_text(SNAKEFILE.format(root=ROOT))
    return Workflow(tmp_path, stub=True, snakefile=snakefile)


def test_a_deployed_workflow_has_the_jobs_of_the_default_run(deployed: Workflow) -> None:
    assert deployed.rules() == JOBS


def test_a_deployed_workflow_runs_with_its_own_configuration(deployed: Workflow) -> None:
    own = {**FEW, "cohort": {"title": "deployed"}}
    (deployed.folder / "config" / "config.yaml").write_text(yaml.safe_dump(own))
    done = deployed.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    (pretrained,) = (call for call in deployed.calls() if call.startswith("pretrain"))
    assert "--backbone resnet18 " in pretrained  # the built-in default, not the phantom's
    assert (deployed.folder / "results/deployed/report/report.html").is_file()
    assert not deployed.rules()


def test_a_mistake_in_a_deployed_configuration_is_one_line(deployed: Workflow) -> None:
    (deployed.folder / "config" / "config.yaml").write_text("cohort: {nam: olives}\n")
    done = deployed.run("--cores", "1")
    assert done.returncode == 2
    assert "octdino: error: config/config.yaml: cohort.nam: unknown key; did you mean name?" in done.stderr
    assert "Traceback" not in done.stderr
