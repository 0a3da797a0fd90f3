"""Distributed training: several processes train as one on the whole batch, stop together, and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from octdino.classify.train_arm import classify
from octdino.config import AugmentSettings, ClassifySettings
from octdino.errors import UserError
from octdino.models.initial_weights import Start
from octdino.pretrain import pretrain
from octdino.pretrain.pretraining_data import batch_order, held_rows, read_data
from octdino.pretrain.trainer import Trainer
from octdino.training import distributed as ranks
from octdino.training.checkpoints import RunState
from tests.pretrain.small_runs import MODELS, NO_DROP_PATH, PAIRS, SETTINGS
from tests.small import write_small_cohort
from tests.workflow.conftest import until

TUNING = ClassifySettings(epochs=1, min_steps=4, batch_size=8, augment=AugmentSettings(global_size=32))
# Relative tolerance of losses, relative and absolute tolerance of weights: bfloat16 rounds sums differently.
TOLERANCES = {"float32": (1e-4, 1e-3, 2e-4), "bfloat16": (1e-2, 5e-2, 1e-1)}
# Shuffled batch norm: a process shuffles its own keys (docs/methods.md).
ALIKE = [pair for pair in PAIRS if pair != ("moco", "resnet")]
CONTRAST = {"seed": 0, "fold": 0, "backbone": "b"}


def train(folder: Path, pairs: list[tuple[str, str]], precision: str) -> None:
    """Pretrain every pair, and fine-tune once."""
    settings = SETTINGS.model_copy(update={"epochs": 1, "precision": precision})
    for name, model in pairs:
        out = folder / f"{name}-{model}"
        pretrain(name, settings, store=folder.parent / "scans.h5", model=NO_DROP_PATH[model], out=out, **CONTRAST)
    tuning = TUNING.model_copy(update={"precision": precision})
    classify(
        "scratch-finetune", tuning, store=folder.parent / "scans.h5", model=NO_DROP_PATH["resnet"], pretrained=None,
        fraction=1.0, out=folder / "tuned", **CONTRAST,
    )  # fmt: skip


def process(rank: int, world: int, port: int, folder: Path, pairs: list[tuple[str, str]], precision: str) -> None:
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank}
    os.environ |= {name: str(value) for name, value in address.items()}
    with ranks.process_group():
        train(folder, pairs, precision)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def compare(tmp_path: Path, world: int, pairs: list[tuple[str, str]], precision: str) -> None:
    write_small_cohort(tmp_path)
    one, several = tmp_path / "one", tmp_path / "several"
    loss_rtol, rtol, atol = TOLERANCES[precision]
    train(one, pairs, precision)
    args = (world, free_port(), several, pairs, precision)
    get_context("forkserver").set_forkserver_preload(["octdino.classify.finetune_arm", "octdino.pretrain.trainer"])
    mp.start_processes(process, args=args, nprocs=world, start_method="forkserver")
    for name, model in pairs:
        here, there = (folder / f"{name}-{model}" for folder in (one, several))
        assert json.loads((there / "backbone.json").read_text())["processes"] == world
        losses = [
            pd.read_csv(folder / "history.csv").filter(regex="loss|entropy|kl|prototypes") for folder in (here, there)
        ]
        np.testing.assert_allclose(*losses, rtol=loss_rtol, err_msg=f"{name} on {model}")
        weights = load_file(there / "backbone.safetensors")
        for key, value in load_file(here / "backbone.safetensors").items():
            np.testing.assert_allclose(weights[key], value, rtol=rtol, atol=atol, err_msg=f"{key} of {name} on {model}")
    tuned = [load_file(folder / "tuned/classifier.safetensors") for folder in (one, several)]
    for key, value in tuned[0].items():
        np.testing.assert_allclose(tuned[1][key], value, rtol=rtol, atol=atol, err_msg=f"{key}, fine-tuned")


@pytest.mark.parametrize("precision", TOLERANCES)
def test_two_processes_train_as_one(tmp_path: Path, precision: str) -> None:
    compare(tmp_path, 2, [("dino", "resnet"), ("dino", "vit")], precision)


@pytest.mark.slow
def test_two_processes_train_every_method_as_one(tmp_path: Path) -> None:
    compare(tmp_path, 2, ALIKE, "float32")


@pytest.mark.slow
def test_four_processes_train_as_one(tmp_path: Path) -> None:
    compare(tmp_path, 4, [("dino", "resnet"), ("simclr", "resnet"), ("dinov2", "vit")], "float32")


def test_settings_by_size_use_the_number_of_all_scans_in_every_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("octdino.config.method_settings.SIZES", (10, 20, 30, 40, 60))
    store = write_small_cohort(tmp_path)  # 72 scans train: the last column
    settings = SETTINGS.variant("simclr")
    start, chosen = Start(settings, MODELS["resnet"], "b", 0, 0), []
    for world in (1, 2, 4):
        monkeypatch.setattr(ranks, "world_size", lambda w=world: w)
        for rank in range(world):
            monkeypatch.setattr(ranks, "rank", lambda r=rank: r)
            data = read_data(store, 0, needed_rows=lambda count: held_rows(16, 0, count))
            trainer = Trainer(SETTINGS, "simclr", start, data, 0, RunState(tmp_path / "state", {}, 1e9))
            chosen.append(trainer.method.settings.hidden_dim)
    assert chosen == [settings.by_size["hidden_dim"][-1]] * 7


def test_process_reads_only_scans_of_its_slice_of_every_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    count, batch = 1003, 24
    whole = read_data(write_small_cohort(tmp_path), 0)
    for world in (1, 2, 3, 4, 8, 12, 24):
        monkeypatch.setattr(ranks, "world_size", lambda w=world: w)
        held = []
        for rank in range(world):
            monkeypatch.setattr(ranks, "rank", lambda r=rank: r)
            held.append(held_rows(batch, 3, count))
            for epoch in range(3):
                mine = batch_order(count, batch, 3, epoch)[:, ranks.local_slice(batch)]
                assert set(mine.flatten().tolist()) <= set(held[-1].tolist())
        assert np.array_equal(np.unique(np.concatenate(held)), np.arange(count)), "every scan is in some process"
        assert max(map(len, held)) <= (count // 8 + 1) * (2 + 8 // world), "no process holds all scans"
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    part = read_data(tmp_path / "scans.h5", 0, needed_rows=lambda count: held_rows(24, 0, count))
    (mine,) = np.nonzero(part.rows.numpy() >= 0)
    assert np.array_equal(mine, held_rows(24, 0, len(whole.rows)))
    assert len(part.images) == len(mine), "only rank 0 holds the online-evaluation set"
    assert torch.equal(part.images[part.rows[mine]], whole.images[whole.rows[mine]])
    assert (part.mean, part.std) == (whole.mean, whole.std)


class TrainerProcess:
    """Runs of `octdino pretrain`: in new processes, or, where nothing is sent to them, in one that starts warm."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.out, self.warm = folder, folder / "run", str(programs / "octdino")
        self.state = self.out / "state"
        write_small_cohort(folder)

    def command(self, *args: str) -> list[str]:
        settings = {
            "epochs": 40, "batch_size": 16, "checkpoint_seconds": 0.2, "eval_every": 20, "precision": "float32",
            "augment": {"global_size": 32, "local_size": 16, "local_views": 2},
            "variants": {"dino": {"prototypes": 32}},
        }  # fmt: skip
        return [
            "pretrain", "dino", "--store", str(self.folder / "scans.h5"), "--backbone", "b",
            "--model", '{"timm": "test_vit", "args": {"patch_size": 8}}', "--settings", json.dumps(settings),
            "--threads", "2", "--out", str(self.out), *args,
        ]  # fmt: skip

    def start(self, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "octdino.cli", *self.command(*args)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def start_warm(self, *args: str, **env: str) -> subprocess.Popen[str]:
        env = {**os.environ, **env}
        return subprocess.Popen([self.warm, *self.command(*args)], env=env, stderr=subprocess.PIPE, text=True)

    def run(self, *args: str) -> tuple[int, str]:
        process = self.start_warm(*args)
        said = process.communicate(timeout=900)[1]
        return process.returncode, said

    def newest(self) -> str:
        """The latest checkpoint's name; may be empty while an earlier one is being deleted."""
        return max((path.name for path in self.state.glob("step-*.pt")), default="")

    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.out / "history.csv")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return not path.exists() or path.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.slow
def test_run_stopped_killed_and_orphaned_resumes_with_any_number_of_processes(tmp_path: Path, programs: Path) -> None:
    whole = TrainerProcess(tmp_path / "whole", programs)
    assert whole.run("--threads", "1")[0] == 0
    trainer = TrainerProcess(tmp_path / "disturbed", programs)

    process = trainer.start("--processes", "2")
    until(trainer.newest)
    assert len(children(process.pid)) == 2
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[1]
    assert (process.returncode, said.count("after saving; run the same command again")) == (75, 1)

    process = trainer.start("--processes", "2")
    before = trainer.newest()
    until(lambda: trainer.newest() > before)
    code, refused = trainer.run("--processes", "2")
    assert code == 2
    assert [line.split(" error: ")[1].split(" on ")[0].rsplit(": ", 1)[0] for line in refused.splitlines()
            if " error: " in line] == [f"{trainer.state}: locked by another trainer"]  # fmt: skip
    os.kill(children(process.pid)[1], signal.SIGKILL)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert said.splitlines()[-1] == (
        "octdino: process 2 of 2 was ended by SIGKILL; the others were ended; run the same command again to resume "
        "from the last checkpoint"
    )

    process = trainer.start("--processes", "2")
    before = trainer.newest()
    until(lambda: trainer.newest() > before)
    left = children(process.pid)
    process.kill()
    until(lambda: all(gone(pid) for pid in left))
    process.communicate()

    assert trainer.run("--threads", "1")[0] == 0, "in one process"
    np.testing.assert_allclose(trainer.history()["loss"], whole.history()["loss"], rtol=1e-3)


@pytest.mark.slow
def test_two_slurm_nodes_and_torchrun_train_as_one(tmp_path: Path, programs: Path) -> None:
    port = str(free_port())
    trainer = TrainerProcess(tmp_path, programs)
    step = {"SLURM_STEP_NUM_NODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    machines = [
        trainer.start_warm("--epochs", "2", "--threads", "1", **step, SLURM_NODEID=str(node)) for node in (0, 1)
    ]
    said = [machine.communicate(timeout=600)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert json.loads((trainer.out / "backbone.json").read_text())["processes"] == 2
    assert said[1] == "", "only rank 0 prints"

    by_torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    out = tmp_path / "torchrun"
    command = [
        *by_torchrun,
        "-m",
        "octdino.cli",
        *trainer.command("--epochs", "2", "--threads", "1", "--out", str(out)),
    ]
    done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    assert done.stderr.count("epoch 2/2") == 1, "only rank 0 prints"
    losses = pd.read_csv(out / "history.csv")["loss"]
    np.testing.assert_allclose(losses, trainer.history()["loss"], rtol=1e-4)


@pytest.mark.slow
def test_batch_size_that_is_no_multiple_of_processes_exits_with_2(tmp_path: Path, programs: Path) -> None:
    code, said = TrainerProcess(tmp_path, programs).run("--processes", "2", "--batch-size", "15")
    assert (code, said.count("\n")) == (2, 1), said
    assert "batch_size: 15 scans per step; expected a multiple of the 2 processes" in said


def test_frozen_arm_in_several_processes_raises_user_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--processes: scratch-linear trains no network"):
        classify("scratch-linear", TUNING, store=tmp_path, model=NO_DROP_PATH["vit"], pretrained=None, fraction=1.0,
                 out=tmp_path, **CONTRAST)  # fmt: skip
