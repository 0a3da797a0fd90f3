"""profiles/generic and profiles/lsf with stand-ins for the commands of PBS, SGE and LSF."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import ROOT, Workflow, until

pytestmark = pytest.mark.slow

COMMANDS = {
    "pbs": ("qsub", "qstat", "qdel"),
    "lsf": ("bsub", "bjobs", "bkill", "badmin", "lsclusters"),
    "sge": ("qsub", "qstat", "qdel"),
}
TARGET = "results/phantom/pretrain/dino/resnet18/fold0-seed0/backbone.json"
# What each is asked for: 8 cores, 8 GB, a day and a GPU.
CHECKS = {
    "pbs": "-l select=1:ncpus=8:mem=8000mb:ngpus=1 -l walltime=1440:00",
    "lsf": "-q long -W 1440 -n 8 -R rusage[mem=1000.0] -R span[hosts=1] -gpu num=1",  # memory per core
    "sge": "-pe smp 8 -l h_vmem=1000M -l h_rt=86400 -l gpu=1",
}


class Cluster:
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
        flow.env |= {"FAKE_SCHEDULER": str(self.state), "FAKE_SCHEDULER_KIND": kind}
        flow.env |= {"OCTDINO_SCHEDULER": kind, "OCTDINO_PATIENCE": "1", "OCTDINO_SUBMIT_OPTIONS": "-q long"}
        profile = ROOT / "profiles/generic"
        if kind == "lsf":  # whose options are in its profile, of which each site has a copy
            profile = flow.folder / "lsf"
            write_lsf_profile(profile)
            configuration = self.state / "lsbatch/fake/configdir/lsb.params"
            configuration.parent.mkdir(parents=True)
            configuration.write_text("Begin Parameters\nDEFAULT_QUEUE = normal\nEnd Parameters\n")
        self.profile = ("--profile", str(profile), "--latency-wait", "5", "--seconds-between-status-checks", "1")

    def jobs(self) -> list[dict[str, Any]]:
        """The submitted jobs."""
        return [json.loads(path.read_text()) for path in sorted(self.state.glob("*.json"))]

    def begin(self, **env: str) -> subprocess.Popen[str]:
        """Snakemake up to a pretraining, in the background."""
        return subprocess.Popen(
            self.flow.command(TARGET, *self.profile), cwd=ROOT, env={**self.flow.env, **env}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def write_lsf_profile(folder: Path) -> None:
    """Write profiles/lsf with the queue of a site."""
    text = (ROOT / "profiles/lsf/config.yaml").read_text()
    folder.mkdir()
    (folder / "config.yaml").write_text(text.replace("_queue: normal", "_queue: long"))


@pytest.mark.parametrize("kind", COMMANDS)
def test_jobs_are_submitted_watched_and_asked_for_what_they_need(kind: str, stubbed: Workflow) -> None:
    cluster = Cluster(stubbed, kind)
    done = stubbed.run(TARGET, *cluster.profile)
    assert done.returncode == 0, done.stdout + done.stderr
    phantom, cohort, pretrain = (" ".join(job["args"]) for job in cluster.jobs())
    assert "phantom" in phantom
    assert "cohort" in cohort
    assert CHECKS[kind] in pretrain
    assert not re.search(r"ngpus|-gpu |-l gpu", cohort)
    assert "-q long" in cohort
    (call,) = (call for call in stubbed.calls() if call.startswith("pretrain"))
    assert "--max-minutes 1430 " in call


@pytest.mark.parametrize(
    ("kind", "memory"), [("pbs", ("mem=8000mb", "mem=16000mb")), ("lsf", ("mem=1000.0", "mem=2000.0"))]
)
def test_a_killed_job_is_tried_again_with_more_memory(kind: str, memory: tuple[str, str], stubbed: Workflow) -> None:
    cluster = Cluster(stubbed, kind)
    process = cluster.begin(STUB_WAITS="pretrain")
    until(lambda: any(call.startswith("pretrain") for call in stubbed.calls()))
    os.killpg(cluster.jobs()[-1]["pid"], signal.SIGKILL)  # without a word: no exit code is written
    until(lambda: sum(call.startswith("pretrain") for call in stubbed.calls()) == 2)
    (cluster.state / "down").touch()  # a scheduler that does not answer is no job that has failed
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first, second = (" ".join(job["args"]) for job in cluster.jobs()[-2:])
    assert memory[0] in first
    assert memory[1] in second
    os.killpg(cluster.jobs()[-1]["pid"], signal.SIGKILL)


@pytest.mark.parametrize("kind", ["pbs", "lsf"])
def test_what_a_killed_snakemake_has_left_is_ended_before_it_is_run_again(kind: str, stubbed: Workflow) -> None:
    cluster = Cluster(stubbed, kind)
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
