"""Progress and errors in log files, as octdino writes them."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from octdino import progress
from octdino.terminal.job_logs import parse_tail, read_tail, seconds_of
from octdino.terminal.job_words import job_of_log, job_words


def test_the_lines_of_progress_are_read_as_they_are_written(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of octdino/progress.py itself: a change of its words would leave the view without rate and time left."""
    times: Iterator[float] = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with caplog.at_level(logging.INFO, "octdino.progress"):
        list(progress.progress(range(3), 300, "reading scans", "scan"))
    lines = [f"2023-11-14 22:13:20 octdino.progress: {message}" for message in caplog.messages]
    tail = parse_tail(lines[:1], at=1e10)
    assert (tail.state, tail.rate, tail.seconds_left) == ("reading scans 1/300 scans", "0.05 scans/s", 99 * 60)


@pytest.mark.parametrize("seconds", [0, 8, 59, 60, 200, 3599])
def test_durations_are_read_as_they_are_written(seconds: int) -> None:
    assert seconds_of(progress.duration(seconds)) == seconds


def test_durations_of_hours_and_of_nothing() -> None:
    assert seconds_of("2 h 5 min") == 7500
    assert seconds_of("") is None
    assert seconds_of("soon") is None


def test_the_lines_of_the_trainer_are_read_as_they_are_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from octdino.config import PretrainSettings
    from octdino.pretrain.history import History

    row = {"epoch": 2, "loss": 3.41, "knn_auroc": 0.7, "feature_std": 0.1, "images_per_second": 210.0}
    row |= {"data_wait": 0.0, "augmentation": 0.1, "utilisation": 0.02}
    settings = PretrainSettings(methods=["dino"], epochs=24)
    with caplog.at_level(logging.INFO):
        History(settings).add_epoch(row, 125.0)
    tail = parse_tail([f"2023-11-14 22:13:20 octdino.pretrain: {caplog.messages[0]}"], at=1e10)
    assert (tail.progress, tail.rate, tail.seconds_left) == ("epoch 2/24, loss 3.41, kNN 0.7", "210 img/s", 125.0)


def test_a_search_of_candidates_is_counted() -> None:
    lines = [
        "2023-11-14 22:13:20 octdino.classify: 48 labeled scans, 3 candidates, up to 300 steps",
        "2023-11-14 22:13:30 octdino.classify: step 300/300: 0.6100 on validation patients",
        "2023-11-14 22:13:30 octdino.classify: candidate 1 of 3, lr 0.1: 0.61 on validation patients at step 300",
        "2023-11-14 22:13:40 octdino.classify: step 30/300: 0.5500 on validation patients",
    ]
    assert parse_tail(lines, at=0).progress == "candidate 2/3, step 30/300, validation 0.5500"


def test_time_left_goes_on_between_two_lines(tmp_path: Path) -> None:
    tail = parse_tail(["x: 1 of 2 scans, 3/s, 1 min 0 s left"], at=1000.0)
    assert tail.left(1000.0) == 60
    assert tail.left(1015.0) == 45
    assert tail.left(2000.0) == 0


def test_control_characters_of_a_log_do_not_reach_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"\xff\x1b[2J\x07octdino evaluate: error: a\x1b[31m\n")
    tail = read_tail(log)
    assert tail is not None
    assert "\x1b" not in "".join([tail.error, tail.state, *tail.last])


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 5_000_000 + "\noctdino audit: error: the last line\n")
    tail = read_tail(log)
    assert tail is not None
    assert tail.error == "octdino audit: error: the last line"
    assert read_tail(tmp_path / "none.log") is None


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("cohort/phantom.log", "phantom: draw the synthetic cohort"),
        ("pretrain/dino.resnet18_narrow.fold0-seed1.log", "pretrain dino, resnet18_narrow, fold 0, seed 1"),
        ("pretrain/dino.vit_small.v1.foldall-seed0.log", "pretrain dino, vit_small.v1, all folds, seed 0"),
        ("classify/dino-linear.r18.f0.05.fold2-seed0.log", "classify dino-linear, r18, 5 % of labels, fold 2, seed 0"),
        ("classify/clinical.none.f1.fold0-seed0.log", "clinical baseline, 100 % of labels, fold 0, seed 0"),
        ("explain/scratch.r18.fold0-seed0.log", "explain scratch, r18, fold 0, seed 0"),
        ("evaluate/external.log", "external: compare external with internal performance"),
        ("external/site_b/external_cohort.log", "external cohort site_b: read and check scans"),
        (
            "external/site_b/score.dino-linear.r18.f0.05.fold2-seed0.log",
            "score dino-linear, r18, 5 % of labels, fold 2, seed 0, external site_b",
        ),
        ("audit/verdict.log", "verdict: check the findings of the audit"),
        ("inference/model.log", "inference: write the model folder"),
    ],
)
def test_a_log_says_whose_it_is(log: str, words: str) -> None:
    job = job_of_log(log)
    assert job is not None
    assert job_words(*job) == words


def test_rules_of_other_workflows_are_shown_with_their_wildcards() -> None:
    assert job_words("merge", {"cohort": "c", "part": "7"}) == "merge, part 7"
    assert job_of_log("merge/7.log") is None
