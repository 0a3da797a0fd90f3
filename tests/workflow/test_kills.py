"""The whole workflow, killed at random moments in every stage and started again, ends with the undisturbed run's bytes.

OCTDINO_KILLS sets how many kills per precision (by default one per stage), OCTDINO_KILLS_SEED another sequence of them.
In bfloat16 there are only the stages that compute with a network: a precision changes no other one.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.workflow.alike import assert_alike
from tests.workflow.conftest import ROOT, Workflow, until
from tests.workflow.test_end_to_end import TINY

pytestmark = pytest.mark.slow

STAGES = (
    "phantom",
    "cohort",
    "pretrain",
    "embed",
    "classify",
    "clinical",
    "evaluate",
    "audit",
    "explain",
    "report",
    "models",
)
NETWORK = ("pretrain", "embed", "classify", "explain")  # what a precision changes
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("group", "snakemake", "job")
KILLS = int(os.environ.get("OCTDINO_KILLS", "0"))
SEED = int(os.environ.get("OCTDINO_KILLS_SEED", "0"))
SECONDS = 4.0  # within so many of the start of a job it is killed: imports, work, writing
CONFIG = {
    **TINY,
    "pretrain": {**TINY["pretrain"], "epochs": 20, "checkpoint_seconds": 0.1, "eval_every": 10},
    "classify": {**TINY["classify"], "fractions": [1.0], "epochs": 10, "checkpoint_seconds": 0.1},
    "explain": {**TINY["explain"], "inits": ["dino"]},
}


def job_of(pid: int, stage: str) -> int | None:
    """The process below Snakemake that runs `octdino STAGE`, if there is one."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return None
    for child in below:
        with contextlib.suppress(psutil.Error):
            if any(path.endswith("/octdino") and verb == stage for path, verb in pairwise(child.cmdline())):
                return int(child.pid)
    return None


class Killed:
    """One working directory whose runs are killed."""

    def __init__(self, folder: Path, precision: str, rng: random.Random) -> None:
        self.flow, self.rng, self.landed = Workflow(folder, stub=False), rng, 0
        self.flow.configure(CONFIG)
        self.flow.env["OCTDINO_AUTO_PRECISION"] = precision

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        with (self.flow.folder / "run.log").open("ab") as log:
            return subprocess.Popen(
                self.flow.command("--cores", "2", "--set-threads", "pretrain=1", "--rerun-incomplete", *args),
                cwd=ROOT, env=self.flow.env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self, stage: str) -> str:
        """Run until a job of `stage` works, then kill something; what was done."""
        process = self.start("--forcerun", stage, "--until", stage)
        until(lambda: process.poll() is not None or job_of(process.pid, stage) is not None, 300)
        time.sleep(self.rng.uniform(0, SECONDS))
        target, number = self.rng.choice(TARGETS), self.rng.choice(SIGNALS)
        job = job_of(process.pid, stage)
        if killed := process.poll() is None and job is not None:
            if target == "group":
                os.killpg(process.pid, number)
            elif target == "snakemake":
                os.kill(process.pid, number)
            else:
                os.kill(job, number)
        code = process.wait(timeout=300)
        self.landed += killed
        return f"{stage}: {number.name} to {target}, " + (f"exit code {code}" if killed else "which had ended")

    def finish(self, *args: str) -> None:
        """Run to the end, or as far as `args` say; jobs that outlived their Snakemake may refuse the first tries."""
        for _ in range(5):
            if self.start(*args).wait(timeout=600) == 0:
                return
            time.sleep(5)
        raise AssertionError((self.flow.folder / "run.log").read_text()[-5000:])


@pytest.mark.parametrize(("precision", "stages"), [("float32", STAGES), ("bfloat16", NETWORK)])
def test_killed_at_random_moments_the_workflow_ends_with_the_same_bytes(
    tmp_path: Path, precision: str, stages: tuple[str, ...]
) -> None:
    rng = random.Random(f"{SEED} {precision}")
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Killed(tmp_path / "whole", precision, rng)
    left_out = ("--omit-from", "clinical", "evaluate", "audit", "models", "report") if stages == NETWORK else ()
    whole.finish(*left_out)
    killed, kills = Killed(tmp_path / "killed", precision, rng), KILLS or len(stages)
    for index in range(kills):
        print(killed.kill(stages[index * len(stages) // kills]), flush=True)
    killed.finish(*left_out)
    assert killed.landed >= kills // 2, "jobs end before they are killed: the suite would prove nothing"
    assert_alike(tmp_path / "whole/results", tmp_path / "killed/results")
