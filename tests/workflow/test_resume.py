"""A pretraining that is killed or stopped, and started again, ends bit for bit where an undisturbed one ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octdino.errors import UserError
from octdino.training.checkpoints import RunState
from tests.small import write_small_cohort
from tests.workflow.conftest import ROOT, Workflow, until

SMALL = [
    "--epochs", "24", "--batch-size", "8", "--augment.global-size", "32", "--augment.local-size", "16",
    "--augment.local-views", "2", "--dino.prototypes", "16", "--dino.hidden-dim", "16", "--dino.bottleneck-dim", "8",
    "--knn", "3", "--eval-every", "8", "--precision", "float32", "--threads", "1", "--checkpoint-seconds", "0.1",
]  # fmt: skip


def checkpoints(out: Path) -> set[str]:
    """Names of a run's checkpoints."""
    return {path.name for path in (out / "state").glob("step-*.pt")}


class Pretraining:
    """`octdino pretrain dino` on a small store, in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.flow = Workflow(folder, stub=False)
        self.store = write_small_cohort(folder / "cohort", patients=15, scans=4)

    def start(self, out: Path) -> subprocess.Popen[str]:
        """Begin or go on; what it says comes by its stderr."""
        command = [sys.executable, "-m", "octdino.cli", "pretrain", "dino", "--store", str(self.store)]
        model = ["--backbone", "tiny", "--model", '{"timm": "test_resnet"}']
        return subprocess.Popen(
            [*command, *model, *SMALL, "--out", str(out)],
            cwd=ROOT,
            env=self.flow.env,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> str:
        """Wait for the end; what it said."""
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def disturb(self, out: Path, number: signal.Signals) -> tuple[int, str]:
        """Go on, send a signal after some more steps; exit code and what it said."""
        before = checkpoints(out)
        process = self.start(out)
        until(lambda: process.poll() is not None or checkpoints(out) - before)
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)  # some steps
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        return process.returncode, said


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    return Pretraining(tmp_path_factory.mktemp("resume"))


def test_killed_and_stopped_runs_end_bit_for_bit_alike(pretraining: Pretraining, tmp_path: Path) -> None:
    undisturbed = pretraining.start(tmp_path / "undisturbed")  # beside the others, to save time
    disturbed = tmp_path / "disturbed"
    until(lambda: checkpoints(tmp_path / "undisturbed"))
    with pytest.raises(UserError, match=f"locked by another trainer: process {undisturbed.pid} on "):
        RunState(tmp_path / "undisturbed/state", {}, 1).locked().__enter__()
    code, _ = pretraining.disturb(disturbed, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (disturbed / "backbone.safetensors").exists()
    code, said = pretraining.disturb(disturbed, signal.SIGTERM)
    assert code == 75
    assert said.splitlines()[-1].startswith("octdino pretrain: stopped by SIGTERM after saving; run the same command")
    assert "resumed at step" in pretraining.finish(pretraining.start(disturbed))
    pretraining.finish(undisturbed)
    names = ("backbone.safetensors", "backbone.json")
    for name in names:
        assert (disturbed / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
    assert len(checkpoints(disturbed)) == 1, "the end, from which the run may be extended"
