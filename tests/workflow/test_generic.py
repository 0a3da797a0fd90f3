"""profiles/generic with stand-ins for PBS, LSF and SGE."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import ROOT, Workflow, until

pytestmark = pytest.mark.slow

COMMANDS = {"pbs": ("qsub", "qstat", "qdel"), "lsf": ("bsub", "bjobs", "bkill"), "sge": ("qsub", "qstat", "qdel")}
TARGET = "results/phantom/pretrain/dino/resnet18/fold0-seed0/backbone.json"
# What each is asked for: 8 cores, 8 GB, a day and a GPU.
CHECKS = {
    "pbs": "-l select=1:ncpus=8:mem=8000mb:ngpus=1 -l walltime=1440:00",
    "lsf": "-n 8 -R span[hosts=1] -R rusage[mem=8000MB] -W 1440 -gpu num=1",
    "sge": "-pe smp 8 -l h_vmem=1000M -l h_rt=86400 -l gpu=1",
}


class Generic:
    """A working directory of the stub, and a scheduler."""

    def __init__(self, flow: Workflow, kind: str) -> None:
        self.flow = flow
        self.state = flow.folder / "scheduler"
        self.state.mkdir()
        for name in COMMANDS[kind]:
            program = flow.folder / "bin" / name
            script = ROOT / "tests/workflow/schedulers.py"
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "import sys; sys.argv[0] = \'{name}\';'
                               f" exec(open('{script}').read())\" \"$@\"\n")  # fmt: skip
            program.chmod(0o755)
        flow.env |= {"FAKE_SCHEDULER": str(self.state), "OCTDINO_SCHEDULER": kind, "OCTDINO_PATIENCE": "1"}
        self.profile = ("--profile", str(ROOT / "profiles/generic"), "--latency-wait", "5")
        self.profile += ("--seconds-between-status-checks", "1")

    def jobs(self) -> list[dict[str, Any]]:
        """The submitted jobs."""
        return [json.loads(path.read_text()) for path in sorted(self.state.glob("*.json"))]

    def begin(self, **env: str) -> subprocess.Popen[str]:
        """Snakemake up to a pretraining, in the background."""
        return subprocess.Popen(
            self.flow.command(TARGET, *self.profile), cwd=ROOT, env={**self.flow.env, **env}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


@pytest.mark.parametrize("kind", COMMANDS)
def test_jobs_are_submitted_watched_and_asked_for_what_they_need(kind: str, stubbed: Workflow) -> None:
    cluster = Generic(stubbed, kind)
    done = stubbed.run(TARGET, *cluster.profile, OCTDINO_SUBMIT_OPTIONS="-q long")
    assert done.returncode == 0, done.stdout + done.stderr
    phantom, cohort, pretrain = (" ".join(job["args"]) for job in cluster.jobs())
    assert "octdino.phantom" in phantom
    assert "octdino.cohort" in cohort
    assert CHECKS[kind] in pretrain
    assert "gpu" not in cohort
    assert cohort.endswith("-q long")
    (call,) = (call for call in stubbed.calls() if call.startswith("pretrain"))
    assert "--max-minutes 1430 " in call


def test_a_job_that_fails_and_one_that_is_killed_are_tried_again(stubbed: Workflow) -> None:
    cluster = Generic(stubbed, "pbs")
    process = cluster.begin(STUB_WAITS="pretrain")
    until(lambda: any(call.startswith("pretrain") for call in stubbed.calls()))
    os.killpg(cluster.jobs()[-1]["pid"], signal.SIGKILL)  # without a word: no exit code is written
    until(lambda: sum(call.startswith("pretrain") for call in stubbed.calls()) == 2)
    (cluster.state / "down").touch()  # a scheduler that does not answer is no job that has failed
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first, second = (" ".join(job["args"]) for job in cluster.jobs()[-2:])
    assert "mem=8000mb" in first
    assert "mem=16000mb" in second, "memory grows with each try"
    os.killpg(cluster.jobs()[-1]["pid"], signal.SIGKILL)


def test_what_a_killed_snakemake_has_left_is_ended_before_it_is_run_again(stubbed: Workflow) -> None:
    cluster = Generic(stubbed, "pbs")
    process = cluster.begin(STUB_WAITS="pretrain")
    until(lambda: any(call.startswith("pretrain") for call in stubbed.calls()))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = cluster.jobs()[-1]["pid"]
    assert Path(f"/proc/{left}").exists()
    done = stubbed.run(TARGET, *cluster.profile)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "octdino: a killed Snakemake has left jobs 102;" in done.stderr
    assert "cannot be locked" not in done.stderr
