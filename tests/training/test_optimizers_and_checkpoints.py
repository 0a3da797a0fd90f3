"""Schedules against closed forms; a state that survives; one trainer at a time."""

import copy
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from octdino.errors import StoppedEarly, UserError
from octdino.training.checkpoints import RunState
from octdino.training.optimizers import ema_update, make_optimizer, parameter_groups, set_schedule, step_if
from octdino.training.precision import autocast, resolve_precision
from octdino.training.random_seeds import seed_of
from octdino.training.schedules import cosine, warmup_cosine
from octdino.training.signals import Stopper


def test_cosine_at_known_points():
    assert cosine(0, 3, 1) == 3
    assert cosine(1, 3, 1) == 1
    assert cosine(0.5, 3, 1) == pytest.approx(2)
    assert cosine(0.25, 1, 0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert cosine(7, 3, 1) == 1


@given(st.floats(0, 1), st.floats(0, 0.5))
def test_warmup_cosine_stays_in_range(progress, warmup):
    assert 0 <= warmup_cosine(progress, 1.0, 0.0, warmup) <= 1 + 1e-12


def test_warmup_is_linear_and_meets_the_cosine():
    assert warmup_cosine(0, 2, 0, 0.1) == 0
    assert warmup_cosine(0.05, 2, 0, 0.1) == pytest.approx(1)
    assert warmup_cosine(0.1, 2, 0, 0.1) == pytest.approx(2)
    assert warmup_cosine(0.55, 2, 0, 0.1) == pytest.approx(1)
    assert warmup_cosine(1, 2, 0.5, 0.1) == pytest.approx(0.5)


def test_schedule_reaches_each_group_as_it_should():
    optimizer = torch.optim.AdamW(parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))), lr=0)
    optimizer.param_groups[0]["lr_scale"] = 0.1
    set_schedule(optimizer, 0.5, 0.04)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.05, 0.04), (0.5, 0.0)]


def test_moving_average_leaves_buffers_alone():
    teacher, student = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        student.weight.fill_(2)
        student.running_mean.fill_(5)
    ema_update(teacher, student, 0.75, torch.tensor(False))
    assert torch.equal(teacher.weight, torch.ones(3)), "no step, no average"
    ema_update(teacher, student, 0.75, torch.tensor(True))
    assert torch.equal(teacher.weight, torch.full((3,), 1.25))
    assert torch.equal(teacher.running_mean, torch.zeros(3))


PLAIN = {"adamw": torch.optim.AdamW, "sgd": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9)}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("refused", [None, 0, 2])
def test_the_fused_optimiser_is_the_plain_one_and_refuses_a_step_without_a_trace(kind, refused):
    """The plain one is stepped by hand, and not at all where the other is told to refuse."""
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16)).to(memory_format=torch.channels_last)
    other = copy.deepcopy(mine)
    optimizers = make_optimizer(kind, parameter_groups(mine)), PLAIN[kind](parameter_groups(other), lr=0.0)
    for step in range(4):
        x, target = torch.randn(4, 8, 8, 8), torch.randn(4, 16, 6, 6)
        for network, optimizer in zip((mine, other), optimizers, strict=True):
            set_schedule(optimizer, 0.01 * (step + 1), 0.1)
            (network(x) * target).mean().backward()
        if step == refused:
            for parameter in mine.parameters():
                parameter.grad.fill_(torch.nan)
            step_if(optimizers[0], torch.tensor(False))
            for a, b in zip(mine.buffers(), other.buffers(), strict=True):
                b.copy_(a)
        else:
            step_if(optimizers[0], torch.tensor(True))
            optimizers[1].step()
        for network in (mine, other):
            network.zero_grad()
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_seeds_depend_on_every_part():
    seeds = {seed_of(a, b, c) for a in range(5) for b in ("views", "order") for c in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, "views", 2) == seed_of(1, "views", 2)


def test_precision_is_asked_of_the_hardware(monkeypatch):
    monkeypatch.delenv("OCTDINO_AUTO_PRECISION", raising=False)
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        with autocast(torch.device("cpu"), "auto"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if native else torch.float32)
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_the_environment_decides_what_auto_takes_and_nothing_else(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    cpu = torch.device("cpu")
    for chosen in ("float32", "bfloat16"):
        monkeypatch.setenv("OCTDINO_AUTO_PRECISION", chosen)
        assert resolve_precision(cpu, "auto") == chosen
        assert [resolve_precision(cpu, asked) for asked in ("float32", "bfloat16")] == ["float32", "bfloat16"]
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "float16")
    with pytest.raises(UserError, match="OCTDINO_AUTO_PRECISION: 'float16'; expected float32 or bfloat16"):
        resolve_precision(cpu, "auto")


def test_state_comes_back_and_other_settings_start_afresh(tmp_path):
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
    with RunState(tmp_path / "state", {"lr": 0.1}, 0).locked() as state:
        assert state.load() is None, "the state of other settings must not come back either"
        state.discard()
    assert not (tmp_path / "state").exists()


def zeros_inside(data):
    return data[:2000] + bytes(1000) + data[3000:]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: bytes(5000), lambda data: data[:1000], zeros_inside])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    with RunState(tmp_path / "state", {}, 0, keep=2).locked() as state:
        state.load()
        for step in (1, 2):
            state.save({"step": step, "weights": torch.ones(3000)}, step)
        path = tmp_path / "state/step-000000002.pt"
        path.write_bytes(damage(path.read_bytes()))
        found = state.load()
    assert found is not None
    assert found["step"] == 1


def test_nothing_executable_is_loaded(tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "owned"),)

    with RunState(tmp_path / "state", {}, 0).locked() as state:
        state.load()
        torch.save({"step": Evil()}, tmp_path / "state" / "step-000000001.pt")
        assert state.load() is None
    assert "step-000000001.pt: it is no checkpoint: Weights only load failed" in caplog.text
    assert not (tmp_path / "owned").exists()


HOLDER = """
import sys, time
from pathlib import Path
from octdino.training.checkpoints import RunState
with RunState(Path(sys.argv[1]), {}, 0).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_trainers_never_share_a_state_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on "), RunState(tmp_path / "state", {}, 0).locked():
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with RunState(tmp_path / "state", {}, 0).locked():
        pass


def test_stopper_hears_signals_and_restores_them():
    before = signal.getsignal(signal.SIGTERM)
    with Stopper().listening() as stopper:
        assert stopper.asked() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.asked() == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_time_limit_stops_and_saves(tmp_path):
    stopper = Stopper(max_minutes=0)
    assert stopper.asked() == "the time limit"
    with RunState(tmp_path / "state", {}, 0).locked() as state:
        with pytest.raises(StoppedEarly, match="time limit"):
            state.stop({"step": 1}, 1, "the time limit")
        assert (tmp_path / "state" / "step-000000001.pt").is_file()
