"""Fine-tuning shows what it does: its views, its curves, and each candidate as a series of its own in trackers."""

import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from octdino.classify.finetune import Finetune, schedule_of
from octdino.classify.finetune_search import FinetuneSearch
from octdino.classify.first_views import first_views
from octdino.classify.labeled_scans import read_labeled
from octdino.errors import StoppedEarly, UserError
from octdino.models.backbones import create_backbone
from octdino.tracking import run_tracking
from octdino.tracking.wandb_run import WandbRun
from octdino.training.checkpoints import RunState
from octdino.training.run_monitor import RunMonitor
from octdino.training.signals import Stopper
from tests.classify.test_classify import SETTINGS as ONE
from tests.classify.test_classify import run as classify
from tests.fake_trackers import install_fake_trackers
from tests.small import TINY_RESNET, write_small_cohort

SETTINGS = ONE.model_copy(update={"min_steps": [8], "epochs": 2, "lr": [1e-3, 1e-2], "precision": "float32"})
SERIES = ["lr0.001-steps8", "lr0.01-steps8"]
NAME = "classify/scratch-finetune/b/f1/fold0-seed0"
WEIGHTS = "classifier.safetensors"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=24)


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(name)]


def test_candidates_are_series_of_their_own_also_after_a_stop(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = install_fake_trackers(monkeypatch)
    chosen = SETTINGS.model_copy(update={"tracking": ["tensorboard", "wandb", "mlflow", "trackio"]})
    classify("scratch-finetune", store, tmp_path / "whole", settings=chosen)
    whole = {name: list(runs.values()) for name, runs in fakes.runs.items()}
    assert all([run.name for run in runs] == [f"{NAME}/{each}" for each in SERIES] for runs in whole.values())
    assert {run.group for runs in whole.values() for run in runs} == {NAME}
    assert {run.project for runs in whole.values() for run in runs} == {"small"}
    for series, run in zip(SERIES, whole["wandb"], strict=True):
        assert run.steps() == [4, 8]
        found = scalars(tmp_path / "whole/tensorboard" / series, "validation_score")
        assert found == [(step, pytest.approx(row["validation_score"])) for step, row in run.rows]
    fakes = install_fake_trackers(monkeypatch)
    calls = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(Stopper, "asked", lambda self: "test" if next(calls) == 13 else None)  # in the second candidate
        with pytest.raises(StoppedEarly):
            classify("scratch-finetune", store, tmp_path / "parts", settings=chosen)
    classify("scratch-finetune", store, tmp_path / "parts", settings=chosen)
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    for name, runs in fakes.runs.items():
        assert [run.rows for run in runs.values()] == [run.rows for run in whole[name]], name
        assert [run.parts for run in runs.values()] == [1, 2], name
    for series in SERIES:
        for measure in ("loss", "lr", "validation_score"):
            ours, theirs = (scalars(tmp_path / part / "tensorboard" / series, measure) for part in ("parts", "whole"))
            assert ours == theirs
    assert (tmp_path / "parts/curves.svg").read_bytes() == (tmp_path / "whole/curves.svg").read_bytes()
    assert all(series in (tmp_path / "parts/curves.svg").read_text() for series in SERIES)
    assert not (tmp_path / "parts/state").exists()


@pytest.mark.parametrize(("killed_at", "logged"), [(9, []), (13, [4])])  # of 8 steps per candidate
def test_a_candidate_that_is_trained_twice_after_a_kill_is_logged_once_in_the_same_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, logged: list[int]
) -> None:
    """The only checkpoint is of the first candidate; the kill comes in the second, whose trackers have started."""
    fakes = install_fake_trackers(monkeypatch)
    chosen = SETTINGS.model_copy(update={"tracking": ["tensorboard", "wandb", "mlflow", "trackio"]})
    steps, dues = iter(range(10**6)), iter(range(10**6))
    train_step = Finetune.train_step

    def killed(tuned: Finetune) -> None:
        if next(steps) == killed_at:
            raise RuntimeError("killed")
        train_step(tuned)

    with monkeypatch.context() as patch:
        patch.setattr(Finetune, "train_step", killed)
        patch.setattr(RunState, "due", lambda self: next(dues) == 4)
        with pytest.raises(RuntimeError, match="killed"):
            classify("scratch-finetune", store, tmp_path, settings=chosen)
    assert all([run.steps() for run in runs.values()] == [[4, 8], logged] for runs in fakes.runs.values())
    classify("scratch-finetune", store, tmp_path, settings=chosen)
    for name, runs in fakes.runs.items():
        assert [run.name for run in runs.values()] == [f"{NAME}/{each}" for each in SERIES], name
        assert [run.steps() for run in runs.values()] == [[4, 8], [4, 8]], name
    for series in SERIES:
        assert [step for step, _ in scalars(tmp_path / "tensorboard" / series, "loss")] == [4, 8]


def test_the_next_candidate_trains_while_a_tracker_still_sends_the_one_before(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = install_fake_trackers(monkeypatch)
    second_trains, in_time = threading.Event(), []
    log_row, begin = WandbRun.log, FinetuneSearch._training

    def slow(run: WandbRun, step: int, metrics: dict[str, float]) -> None:
        in_time.append(second_trains.wait(20))
        log_row(run, step, metrics)

    def training(search: FinetuneSearch, index: int) -> Finetune:
        if index == 1:
            second_trains.set()
        return begin(search, index)

    monkeypatch.setattr(WandbRun, "log", slow)
    monkeypatch.setattr(FinetuneSearch, "_training", training)
    classify("scratch-finetune", store, tmp_path, settings=SETTINGS.model_copy(update={"tracking": ["wandb"]}))
    assert in_time == [True] * 4
    assert [run.steps() for run in fakes.runs["wandb"].values()] == [[4, 8], [4, 8]]
    assert [run.ends for run in fakes.runs["wandb"].values()] == [[0], [0]]


def test_what_a_tracker_had_not_sent_of_an_earlier_candidate_at_a_stop_is_sent_when_resumed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fakes = install_fake_trackers(monkeypatch)
    chosen = SETTINGS.model_copy(update={"tracking": ["wandb"]})
    forever, calls = threading.Event(), iter(range(10**6))

    def hang(*_: object) -> None:
        forever.wait(60)
        raise RuntimeError("left")

    with monkeypatch.context() as patch:
        patch.setattr(WandbRun, "log", hang)
        patch.setattr(run_tracking, "STOP_SECONDS", 0.1)
        patch.setattr(Stopper, "asked", lambda self: "test" if next(calls) == 13 else None)  # in the second candidate
        with pytest.raises(StoppedEarly):
            classify("scratch-finetune", store, tmp_path, settings=chosen)
    assert "tracking: wandb has not finished in time; what it had not sent is lost" in caplog.text
    classify("scratch-finetune", store, tmp_path, settings=chosen)
    forever.set()
    assert [run.name for run in fakes.runs["wandb"].values()] == [f"{NAME}/{each}" for each in SERIES]
    assert [run.steps() for run in fakes.runs["wandb"].values()] == [[4, 8], [4, 8]]


def test_pictures_and_trackers_change_no_weight(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classify("scratch-finetune", store, tmp_path / "with", settings=SETTINGS)
    with Image.open(tmp_path / "with/views.png") as sheet:
        assert sheet.mode == "L"
    with monkeypatch.context() as patch:
        patch.setattr(RunMonitor, "show_views", lambda *_, **__: None)
        patch.setattr(RunMonitor, "show_curves", lambda *_, **__: None)
        untracked = SETTINGS.model_copy(update={"tracking": ["none"]})
        classify("scratch-finetune", store, tmp_path / "without", settings=untracked)
    assert sorted(path.name for path in (tmp_path / "without").iterdir()) == [
        "classifier.json", "classifier.safetensors", "predictions.csv",
    ]  # fmt: skip
    assert (tmp_path / "with" / WEIGHTS).read_bytes() == (tmp_path / "without" / WEIGHTS).read_bytes()


def test_shown_views_are_those_of_the_batches(store: Path) -> None:
    data = read_labeled(store, 1.0, 0)
    schedule = schedule_of(SETTINGS, SETTINGS.candidates()[0], len(data.rows("train")))
    backbone = create_backbone(TINY_RESNET, 1, 32)
    tuned = Finetune(SETTINGS, data, backbone, lr=1e-3, schedule=schedule, pretrained=False, seed=0)
    rows, caption = first_views(tuned, data, NAME)
    assert caption.startswith(NAME)
    assert len(rows) == 4
    names = data.manifest["scan_id"].tolist()
    for row in rows:
        position = names.index(row.name)
        steps = [step for step in range(schedule.total) if position in tuned.batch(step)]
        assert row.views
        for cell, step in zip(row.views, steps[: len(row.views)], strict=True):
            places = torch.from_numpy(tuned.batch(step))
            (index,) = (places == position).nonzero()[0].tolist()
            view = tuned.views(step, data.images[places], places)[index]
            pixels = (view * data.std[0] + data.mean[0]) * 255
            torch.testing.assert_close(cell.image.float(), pixels, atol=0.51, rtol=0)


def test_arms_on_embeddings_need_no_tracker(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing = ONE.model_copy(update={"tracking": ["wandb"]})
    with pytest.raises(UserError, match=r"tracking: wandb: package wandb is missing; pip install 'octdino\[wandb\]'"):
        classify("scratch-finetune", store, tmp_path / "a", settings=missing)
    classify("scratch-knn", store, tmp_path / "b", settings=missing)
