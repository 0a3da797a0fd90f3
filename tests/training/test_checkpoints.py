"""Checkpoints: fingerprint, damaged files, nothing executed, and the lock file."""

import os
import subprocess
import sys

import pytest
import torch

from octdino.errors import StoppedEarly, UserError
from octdino.training.checkpoints import RunState
from octdino.training.signals import Stopper


def test_checkpoint_is_loaded_only_with_same_fingerprint(tmp_path, caplog):
    with RunState(tmp_path / "state", {"lr": 0.1}, 0).locked() as state:
        assert state.load() is None
        state.save({"step": 3, "weights": torch.arange(3)}, 3)
    with RunState(tmp_path / "state", {"lr": 0.1}, 0).locked() as state:
        saved = state.load()
        assert saved is not None
        assert saved["step"] == 3
        assert torch.equal(saved["weights"], torch.arange(3))
    with RunState(tmp_path / "state", {"lr": 0.2}, 0).locked() as state:
        assert state.load() is None
    assert "checkpoint fingerprint does not match, or the run has already finished; starting again" in caplog.text
    with RunState(tmp_path / "state", {"lr": 0.1}, 0).locked() as state:
        assert state.load() is None, "other settings have deleted it"
        state.discard()
    assert not (tmp_path / "state").exists()


def zeros_inside(data):
    return data[:2000] + bytes(1000) + data[3000:]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: bytes(5000), lambda data: data[:1000], zeros_inside])
def test_damaged_checkpoint_is_skipped(tmp_path, damage):
    with RunState(tmp_path / "state", {}, 0, keep=2).locked() as state:
        state.load()
        for step in (1, 2):
            state.save({"step": step, "weights": torch.ones(3000)}, step)
        path = tmp_path / "state/step-000000002.pt"
        path.write_bytes(damage(path.read_bytes()))
        found = state.load()
    assert found is not None
    assert found["step"] == 1


def test_pickled_code_is_not_executed(tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "owned"),)

    with RunState(tmp_path / "state", {}, 0).locked() as state:
        state.load()
        torch.save({"step": Evil()}, tmp_path / "state" / "step-000000001.pt")
        assert state.load() is None
    assert "step-000000001.pt: not a checkpoint: Weights only load failed" in caplog.text
    assert not (tmp_path / "owned").exists()


HOLDER = """
import sys, time
from pathlib import Path
from octdino.training.checkpoints import RunState
with RunState(Path(sys.argv[1]), {}, 0).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_refuses_second_trainer_and_is_released_by_a_kill(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"locked by another trainer: process {holder.pid} on "),
            RunState(tmp_path / "state", {}, 0).locked(),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with RunState(tmp_path / "state", {}, 0).locked():
        pass


def test_stop_at_time_limit_saves_checkpoint(tmp_path):
    stopper = Stopper(max_minutes=0)
    assert stopper.asked() == "the time limit"
    with RunState(tmp_path / "state", {}, 0).locked() as state:
        with pytest.raises(StoppedEarly, match="time limit"):
            state.stop({"step": 1}, 1, "the time limit")
        assert (tmp_path / "state" / "step-000000001.pt").is_file()
