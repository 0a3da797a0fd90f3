"""A sweep of a thousand jobs is planned in seconds."""

import resource
import subprocess

import pytest

from tests.workflow.conftest import ROOT, Workflow, jobs

METHODS = ["dino", "simclr", "moco", "byol", "vicreg"]
MODES = ["linear", "finetune", "knn"]


@pytest.mark.parametrize(
    "where",
    [pytest.param(("--cores", "2"), marks=pytest.mark.slow), ("--profile", str(ROOT / "profiles/slurm"))],
)
def test_a_thousand_jobs_are_planned_in_seconds(where: tuple[str, str], stubbed: Workflow) -> None:
    stubbed.configure(
        {
            "models": {"small": {"timm": "resnet18"}, "large": {"timm": "resnet50"}},
            "pretrain": {"methods": METHODS, "backbones": ["small", "large"], "seeds": [0, 1, 2]},
            "classify": {
                "arms": ["scratch-finetune", *(f"{method}-{mode}" for method in METHODS for mode in MODES)],
                "fractions": [0.01, 0.05, 0.1, 0.2, 0.5, 1.0],
                "seeds": [0, 1, 2, 3, 4],
            },
        }
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = stubbed.command("-n", *where)  # the real program: the warm one is no child of this process
    done = subprocess.run(command, cwd=ROOT, env=stubbed.env, capture_output=True, text=True, timeout=600)
    # Processor time, so that a busy machine changes nothing.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 30
    found = jobs((done.returncode, done.stdout + done.stderr))
    assert (found["pretrain"], found["classify"]) == (30, 960)
    assert found.total() > 1000
