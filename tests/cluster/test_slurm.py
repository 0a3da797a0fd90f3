"""The pipeline through profiles/slurm on a real SLURM, jobs disturbed in every way, against a run on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.box import Box, said
from tests.workflow.alike import assert_alike
from tests.workflow.conftest import ROOT, Workflow
from tests.workflow.test_end_to_end import TINY

pytestmark = pytest.mark.cluster

# Long enough to be disturbed in the midst, and a run for each disturbance.
CONFIG = {
    **TINY,
    "pretrain": {**TINY["pretrain"], "epochs": 40, "seeds": [0, 1, 2, 3], "checkpoint_seconds": 0.2, "eval_every": 20},
    "classify": {**TINY["classify"], "fractions": [1.0]},
    "explain": {**TINY["explain"], "inits": ["dino"]},
}
RUN = "results/phantom/pretrain/dino/tiny/fold0-seed{}"
ALIKE = ("--set-threads", "pretrain=1", "cohort=2", "phantom=2")  # sums on more threads are other sums
FAST = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10")


class Cluster(Workflow):
    """A working directory whose jobs go to SLURM."""

    def begin(self, *args: str, profile: Path = ROOT / "profiles/slurm") -> subprocess.Popen[str]:
        """Snakemake as docs/cluster.md says it, in the background; what it says is in run.log."""
        command = [sys.executable, str(ROOT / "tests/cluster/fastpoll.py"), "--profile", str(profile)]
        with (self.folder / "run.log").open("a") as log:
            return subprocess.Popen(
                [*command, "--directory", str(self.folder), *args, *ALIKE, *FAST],
                cwd=ROOT, env=self.env, stdout=log, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

    def said(self) -> str:
        """What Snakemake has said."""
        return (self.folder / "run.log").read_text()

    def job(self, seed: int) -> str | None:
        """The id of the running SLURM job that pretrains with this seed, once it has saved something."""
        if not list((self.folder / RUN.format(seed) / "state").glob("step-*.pt")):
            return None
        listed = said("squeue", "-h", "-t", "R", "-o", "%A %Z %k").splitlines()
        mine = [line for line in listed if str(self.folder) in line and re.search(rf"pretrain.*_{seed}$", line)]
        return mine[0].split()[0] if mine else None

    def trainer(self, seed: int) -> int:
        """The process that pretrains with this seed."""
        return int((self.folder / RUN.format(seed) / "state/lock").read_text().split()[1])

    def step(self, seed: int) -> int:
        """The newest checkpoint's step."""
        return max(
            (int(path.stem[5:]) for path in (self.folder / RUN.format(seed) / "state").glob("step-*.pt")), default=0
        )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The same configuration on this machine, undisturbed."""
    flow = Workflow(tmp_path_factory.mktemp("local"), stub=False)
    flow.configure(CONFIG)
    done = flow.run("--cores", "2", *ALIKE)
    assert done.returncode == 0, done.stderr[-5000:]
    return flow


def disturb(flow: Cluster, process: subprocess.Popen[str], kinds: dict[int, Callable[[str], object]]) -> None:
    """Do to each seed's job what `kinds` says, as soon as it has saved something."""
    waiting = dict(kinds)
    end = time.monotonic() + 300
    while waiting:
        assert process.poll() is None, flow.said()
        assert time.monotonic() < end, flow.said()
        for seed in list(waiting):
            if job := flow.job(seed):
                waiting.pop(seed)(job)
        time.sleep(0.05)


def test_disturbed_jobs_end_as_undisturbed_ones(slurm: Box, local: Workflow, tmp_path: Path) -> None:
    flow = Cluster(tmp_path, stub=False)
    flow.configure(CONFIG)
    process = flow.begin()
    disturb(
        flow,
        process,
        {
            0: lambda job: said("scancel", job),
            1: lambda job: said("scontrol", "requeue", job),
            2: lambda job: said("scontrol", "update", f"JobId={job}", "EndTime=now+1"),  # over its time limit
            3: lambda _: os.kill(flow.trainer(3), signal.SIGKILL),  # fails once, without a word
        },
    )
    assert process.wait(400) == 0, flow.said()
    assert_alike(local.folder / "results", tmp_path / "results")


def test_a_killed_snakemake_is_started_again(slurm: Box, local: Workflow, tmp_path: Path) -> None:
    """Its job lives on: it is told to save and end, and never are there two trainers of one run."""
    flow = Cluster(tmp_path, stub=False)
    flow.configure(CONFIG)
    target = f"{RUN.format(0)}/backbone.safetensors"
    process = flow.begin(target)
    disturb(flow, process, {0: lambda _: process.kill()})
    process.wait()
    job = flow.job(0)
    assert job, "ended too early"
    process = flow.begin(target)
    assert process.wait(300) == 0, flow.said()
    assert f"a killed Snakemake has left jobs {job};" in flow.said()
    assert "locked by another trainer" not in flow.said()
    assert (tmp_path / target).read_bytes() == (local.folder / target).read_bytes()


def test_a_job_with_two_gpus_trains_in_two_processes(slurm: Box, tmp_path: Path) -> None:
    flow = Cluster(tmp_path, stub=False)
    flow.configure({**CONFIG, "pretrain": {**CONFIG["pretrain"], "epochs": 2}})
    profile = tmp_path / "profile"
    profile.mkdir()
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    (profile / "config.yaml").write_text(re.sub(r"^  gpus: 1 ", "  gpus: 2 ", text, flags=re.MULTILINE))
    process = flow.begin(f"{RUN.format(0)}/backbone.json", profile=profile)
    assert process.wait(300) == 0, flow.said()
    assert json.loads((tmp_path / RUN.format(0) / "backbone.json").read_text())["processes"] == 2
