"""Trackers: every epoch once in one run whatever happens to the process, nothing on the network, no failure ends it."""

import importlib.util
import os
import re
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from octdino.errors import StoppedEarly, UserError
from octdino.pretrain.trainer import Trainer
from octdino.tracking import RunTracking, Tracked, check_installed, run_tracking
from octdino.training.checkpoints import RunState
from tests.fake_trackers import install_fake_trackers
from tests.pretrain.small_runs import STEPS, run, settings, stop_at, weights
from tests.workflow.conftest import until

ALL = ["tensorboard", "wandb", "mlflow", "trackio"]
FAKES = ALL[1:]
NAME = "pretrain/dino/b/fold0-seed0"


@pytest.fixture
def fakes(monkeypatch):
    return install_fake_trackers(monkeypatch)


def tensorboard_steps(folder, name="loss"):
    """Return the steps of a scalar in TensorBoard's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars(name)]


def killed(monkeypatch, store, out, chosen, step, saved):
    """Run with one checkpoint, after `saved` steps, until an error after `step` steps, which saves nothing."""
    take_step, calls = Trainer.take_step, iter(range(1, 10**6))

    def failing(self):
        if self.step == step:
            raise RuntimeError("killed")
        take_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", failing)
        patch.setattr(RunState, "due", lambda self: next(calls) == saved)
        with pytest.raises(RuntimeError, match="killed"):
            run(store, out, settings=chosen)


def test_an_epoch_that_is_trained_twice_is_logged_once_in_the_same_run(store, tmp_path, monkeypatch, fakes):
    chosen = settings(epochs=4, tracking=ALL)
    killed(monkeypatch, store, tmp_path, chosen, step=3 * STEPS + 1, saved=STEPS + 1)
    assert all(fakes.only(name).steps() == [STEPS, 2 * STEPS, 3 * STEPS] for name in FAKES)
    run(store, tmp_path, settings=chosen)
    steps = pd.read_csv(tmp_path / "history.csv")["step"].tolist()
    assert len(steps) == 4
    for name in FAKES:
        tracked = fakes.only(name)
        assert tracked.steps() == steps, name
        assert tracked.parts == 2
    assert tensorboard_steps(tmp_path / "tensorboard") == steps
    assert fakes.only("wandb").ends == [1, 0]
    assert fakes.only("mlflow").ends == ["KILLED", "FINISHED"]


def test_a_stopped_run_appends_to_its_run_and_a_forced_one_begins_another(store, tmp_path, monkeypatch, fakes):
    chosen = settings(tracking=FAKES)
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS + 1)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path, settings=chosen)
    run(store, tmp_path, settings=chosen)
    assert all(fakes.only(name).steps() == [STEPS, 2 * STEPS] for name in FAKES)
    run(store, tmp_path, settings=chosen)  # it is finished: it starts again
    for name in FAKES:
        assert [tracked.steps() for tracked in fakes.runs[name].values()] == [[STEPS, 2 * STEPS]] * 2, name


def test_a_tracker_is_told_cohort_run_settings_and_measures_but_no_scans(store, tmp_path, fakes):
    run(store, tmp_path, settings=settings(tracking=FAKES))
    last = pd.read_csv(tmp_path / "history.csv").iloc[-1]
    for name in FAKES:
        tracked = fakes.only(name)
        assert (tracked.project, tracked.name, tracked.group) == ("small", NAME, "pretrain/dino/b")
        assert tracked.rows[-1][1]["loss"] == pytest.approx(last["loss"])
        assert tracked.rows[-1][1]["knn_auroc"] == pytest.approx(last["knn_auroc"])
        assert "p0" not in str(tracked.config).replace("settings", ""), "patients are p0, p1, ..."
    assert fakes.only("wandb").config["settings"]["batch_size"] == 16
    assert fakes.only("mlflow").config["settings.augment.global_size"] == "32"
    assert "tracking" not in fakes.only("wandb").config["settings"]


def test_trackers_stay_on_the_machine_unless_the_environment_says_otherwise(store, tmp_path, monkeypatch, fakes):
    run(store, tmp_path / "a", settings=settings(epochs=1, tracking=FAKES))
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"  # the store is mlflow.db: the fake checks it
    monkeypatch.setenv("WANDB_MODE", "online")
    run(store, tmp_path / "b", settings=settings(epochs=1, tracking=["wandb"]))
    assert os.environ["WANDB_MODE"] == "online"


def failing(*_, **__):
    raise ConnectionError("server is down")


@pytest.mark.parametrize("when", ["start", "log", "finish"])
def test_failing_trackers_are_one_warning_each_and_change_no_weight(
    store, tmp_path, tmp_path_factory, monkeypatch, fakes, caplog, when
):
    plain = tmp_path_factory.getbasetemp() / "untracked"
    if not plain.exists():
        run(store, plain, settings=settings(tracking=["none"]))
    for name in FAKES:
        module = importlib.import_module(f"octdino.tracking.{run_tracking.MODULES[name]}")
        tracker = next(value for key, value in vars(module).items() if key.endswith("Run") and key != "Run")
        monkeypatch.setattr(module if when == "start" else tracker, when, failing)
    run(store, tmp_path, settings=settings(tracking=FAKES))
    assert weights(tmp_path) == weights(plain)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sorted(warnings) == [
        f"tracking: {name} failed and is left out from here on: server is down" for name in sorted(FAKES)
    ]


def test_a_failing_tracker_leaves_the_others_alone(store, tmp_path, monkeypatch, fakes):
    monkeypatch.setattr("octdino.tracking.mlflow_run.MlflowRun.log", failing)
    run(store, tmp_path, settings=settings(tracking=FAKES))
    assert [fakes.only(name).steps() for name in FAKES] == [[STEPS, 2 * STEPS], [], [STEPS, 2 * STEPS]]


def test_a_tracker_that_hangs_delays_the_end_by_its_time_limit_only(store, tmp_path, monkeypatch, fakes, caplog):
    forever = threading.Event()
    monkeypatch.setattr(run_tracking, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr("octdino.tracking.trackio_run.TrackioRun.log", lambda *_: forever.wait(60))
    run(store, tmp_path, settings=settings(tracking=["wandb", "trackio"]))
    assert "tracking: trackio has not finished in time" in caplog.text
    until(lambda: fakes.only("wandb").steps() == [STEPS, 2 * STEPS])  # on a busy machine after the time limit, too
    forever.set()


def test_all_hanging_trackers_together_delay_the_end_by_one_time_limit(tmp_path, monkeypatch, fakes, caplog):
    """By a clock that only waiting moves: three waits one after another would take three time limits."""
    forever, waited = threading.Event(), []
    monkeypatch.setattr(run_tracking, "FINISH_SECONDS", 0.5)
    monkeypatch.setattr(run_tracking, "time", SimpleNamespace(monotonic=lambda: 100.0 + sum(waited)))
    monkeypatch.setattr(run_tracking._Worker, "join", lambda _, timeout: waited.append(timeout))
    for name in FAKES:
        module = importlib.import_module(f"octdino.tracking.{run_tracking.MODULES[name]}")
        monkeypatch.setattr(module, "start", lambda *_: forever.wait(60))
    (tmp_path / "state").mkdir()
    tracked = Tracked("cohort", "classify", "path", "group", {}, tmp_path)
    with RunTracking(FAKES, tracked) as trackers:
        for series in "abc":
            trackers.begin([], series=series)
            trackers.log({"step": 1, "loss": 1.0})
        assert waited == []
    assert waited == [0.5, 0, 0]
    assert len(caplog.messages) == len(FAKES)
    forever.set()


@pytest.mark.parametrize(
    ("name", "missing"),
    [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow"), ("mlflow", "alembic"),
     ("mlflow", "sqlalchemy"), ("trackio", "trackio")],
)  # fmt: skip
def test_a_missing_package_is_one_line_before_anything_is_read(tmp_path, monkeypatch, fakes, name, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == missing else find(package))
    with pytest.raises(UserError) as error:
        run(tmp_path / "no" / "scans.h5", tmp_path, settings=settings(tracking=[name]))
    assert str(error.value) == f"tracking: {name}: package {missing} is missing; pip install 'octdino[{name}]'"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = [re.match(r"[a-z]+", requirement)[0] for requirement in project["optional-dependencies"][name]]
    assert missing in extra, "the extra installs it; mlflow-skinny has the module mlflow"


def test_auto_is_tensorboard_where_that_is_installed(monkeypatch):
    assert check_installed(["auto"]) == ["tensorboard"]
    assert check_installed(["auto", "tensorboard"]) == ["tensorboard"]
    assert check_installed(["none"]) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    assert check_installed(["auto"]) == []


def test_a_server_of_mlflow_needs_no_database(monkeypatch, fakes):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "alembic" else find(name))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert check_installed(["mlflow"]) == ["mlflow"]


def test_untracked_run_imports_no_tracker(store, tmp_path, monkeypatch, caplog):
    for name in ("torch.utils.tensorboard.writer", *FAKES):
        monkeypatch.setitem(sys.modules, name, None)  # an import would fail, which is a warning
    run(store, tmp_path, settings=settings(epochs=1, tracking=["none"]))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert not (tmp_path / "tensorboard").exists()
