"""The view of a run, on the events that Snakemake sends."""

import logging
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.terminal.emulator import Terminal
from tests.terminal.events import RUN, Clock, job_info, record, view


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def write_log(path: Path, text: str, clock: Clock) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (clock.now, clock.now))
    return path


def test_running_jobs_are_redrawn_and_finished_ones_stay_above(tmp_path: Path) -> None:
    shown, stream, clock = view()
    shown.take(record("run_info", stats={"phantom": 1, "pretrain": 1, "all": 1, "total": 3}))
    shown.take(job_info(2, "phantom"))
    clock.now += 5
    shown.refresh()
    shown.take(record("job_finished", job_id=2))
    log = write_log(
        tmp_path / "a.log",
        "2023-11-14 22:13:25 octdino.pretrain: epoch 3/24 loss 3.41 knn_auroc 0.71 feature_std 0.02 210 img/s,"
        " data wait 0.1 %, augmentation 9.0 %, MFU 3 %, 2 min 5 s left\n",
        clock,
    )
    shown.take(job_info(1, "pretrain", RUN, log))
    clock.now += 10
    shown.refresh()
    shown.refresh()
    assert Terminal(200).write(stream.getvalue()).lines() == [
        "2 jobs to do",
        "✓ phantom: draw the synthetic cohort, 5 s",
        "pretrain dino, resnet18_narrow, fold 0…  1 min 55 s left  10 s  epoch 3/24, lo…",
        "1 of 2 jobs done, 15 s, about 1 min 55 s left",
    ]


def test_the_end_of_a_good_run_is_a_sum_without_a_region() -> None:
    shown, stream, clock = view()
    shown.take(record("run_info", stats={"phantom": 1, "total": 1}))
    shown.take(job_info(1, "phantom"))
    clock.now += 61
    shown.take(record("job_finished", job_id=1))
    shown.take(record(None, "The page: /x/report.html"))
    shown.close()
    assert Terminal().write(stream.getvalue()).lines()[1:] == [
        "✓ phantom: draw the synthetic cohort, 1 min 1 s",
        "The page: /x/report.html",
        "Done: 1 of 1 jobs done in 1 min 1 s.",
    ]


def failed_run(
    tmp_path: Path, text: str, terminal: bool = False, how: str = "returned non-zero exit status 2."
) -> list[str]:
    """What is shown of a run whose first job fails with `text` in its log."""
    shown, stream, clock = view(terminal)
    log = tmp_path / "evaluate.log"
    shown.take(record("run_info", stats={"evaluate": 1, "report": 1, "total": 2}))
    shown.take(job_info(1, "evaluate", {"cohort": "c"}, log))
    write_log(log, text, clock)
    command = f"CalledProcessError in file \"x.smk\", line 3:\nCommand 'exec octdino …' {how}"
    shown.take(record("error", f"RuleException:\n{command}", logging.ERROR, exception="RuleException"))
    shown.take(
        record("job_error", "Error in rule evaluate", logging.ERROR, jobid=1, rule_name="evaluate", log=[str(log)])
    )
    shown.take(record(None, "Removing output files of failed job evaluate since they might be corrupted:\nx"))
    shown.take(record(None, "Exiting because a job execution failed. Look above for error messages", logging.ERROR))
    shown.take(record("error", "WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR))
    shown.close()
    return Terminal(300).write(stream.getvalue()).lines()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_error_of_a_failed_job_comes_last_and_alone(terminal: bool, tmp_path: Path) -> None:
    line = "octdino evaluate: error: a/predictions.csv: row 3: 'x' is no number; expected 0 to 1"
    lines = failed_run(tmp_path, f"2023-11-14 22:13:25 octdino.evaluate: 7 arms\n{line}\n", terminal)
    assert lines[-3:] == [
        "The run failed after 0 s: 0 of 2 jobs done, 1 failed; the same command resumes it.",
        line,
        f"  log: {tmp_path}/evaluate.log",
    ]
    assert len(lines) == (5 if terminal else 6)


def test_a_failure_without_an_error_line_shows_the_end_of_the_log(tmp_path: Path) -> None:
    lines = failed_run(
        tmp_path, "Traceback (most recent call last):\n" + "  frame\n" * 20 + "ZeroDivisionError: division\n"
    )
    assert "evaluate: compare the arms on test patients: failed with exit status 2; its log ends with:" in lines
    assert lines[-2:] == ["  ZeroDivisionError: division", f"  log: {tmp_path}/evaluate.log"]
    assert len(lines) < 20


@pytest.mark.parametrize(
    "how",
    [
        "returned non-zero exit status 137.",
        str(subprocess.CalledProcessError(-signal.SIGKILL, "x")).removeprefix("Command 'x' "),
    ],
)
def test_a_job_that_the_system_killed_is_named_so(how: str, tmp_path: Path) -> None:
    """By a shell, or by Python."""
    lines = failed_run(tmp_path, "epoch 1\n", how=how)
    assert any(", killed by SIGKILL, which the system sends where memory is short" in line for line in lines)


def test_plain_lines_are_the_start_and_the_end_of_each_job() -> None:
    shown, stream, clock = view(terminal=False)
    shown.take(record("run_info", stats={"phantom": 1, "total": 1}))
    shown.take(job_info(1, "phantom"))
    for _ in range(5):
        shown.refresh()
    clock.now += 2
    shown.take(record("job_finished", job_id=1))
    shown.take(record(None, "a warning", logging.WARNING))
    shown.close()
    text = stream.getvalue()
    assert "\x1b" not in text
    assert [line[9:] if line[2:3] == ":" else line for line in text.splitlines()] == [
        "1 job to do",
        "start: phantom: draw the synthetic cohort",
        "done: phantom: draw the synthetic cohort, 2 s; 1 of 1 jobs done, 2 s",
        "a warning",
        "Done: 1 of 1 jobs done in 2 s.",
    ]


def test_ctrl_c_is_no_failure(tmp_path: Path) -> None:
    shown, stream, clock = view(terminal=False)
    log = tmp_path / "a.log"
    shown.take(record("run_info", stats={"pretrain": 2, "total": 2}))
    for number in (1, 2):
        shown.take(job_info(number, "pretrain", RUN | {"seed": str(number)}, log))
    write_log(log, "octdino pretrain: stopped by SIGINT after saving; run the same command again to resume\n", clock)
    shown.take(record("job_error", "x", logging.ERROR, jobid=1))  # may come before Snakemake's own message
    shown.take(record(None, "Terminating processes on user request, this might take some time."))
    shown.take(record("error", "WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR))
    shown.close()
    text = stream.getvalue()
    assert "failed" not in text
    assert "error" not in text.lower()
    assert text.endswith("Stopped by Ctrl-C after 0 s: 0 of 2 jobs done; the same command resumes it.\n")


def test_a_mistake_that_snakemake_finds_is_one_line() -> None:
    shown, stream, _ = view(terminal=False)
    text = "MissingInputException in rule a:\nMissing input files for rule a:\n    affected files:\n        a.csv"
    shown.take(record("error", text, logging.ERROR, exception="MissingInputException"))
    shown.close()
    assert stream.getvalue() == (
        "snakemake: error: MissingInputException in rule a: Missing input files for rule a: affected files: a.csv\n"
    )


def test_hundreds_of_jobs_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, stream, _ = view()
    monkeypatch.setattr(shown.screen, "size", lambda: (60, 12))
    shown.take(record("run_info", stats={"classify": 300, "total": 300}))
    for number in range(300):
        wildcards = {"arm": "dino-linear", "backbone": "resnet18", "fraction": "0.05", "fold": "0", "seed": str(number)}
        shown.take(job_info(number, "classify", wildcards))
    lines = Terminal(60).write(stream.getvalue()).lines()[1:]
    assert len(lines) == 10
    assert lines[0] == "classify dino-linear, resnet18, 5 % of labe…  0 s  starting"
    assert lines[-2:] == ["and 292 more, running or waiting", "0 of 300 jobs done, 0 s"]


def test_a_job_of_a_cluster_waits_until_it_writes(tmp_path: Path) -> None:
    shown, _, clock = view()
    log = tmp_path / "a.log"
    shown.take(job_info(1, "embed", {"init": "dino", "backbone": "b", "fold": "0", "seed": "0"}, log, local=False))
    clock.now += 3
    assert shown.region()[0] == "embed dino, b, fold 0, seed 0  3 s  waits on the cluster"
    write_log(log, "2023-11-14 22:13:23 octdino.progress: embedding: 30 of 90 scans, 12.5/s, 5 s left\n", clock)
    assert shown.region()[0] == "embed dino, b, fold 0, seed 0  5 s left  3 s  embedding 30/90 scans  12.5 scan…"


def test_time_left_is_of_the_jobs_that_are_known() -> None:
    shown, _, clock = view()
    shown.take(record("run_info", stats={"embed": 3, "report": 1, "total": 4}))
    wildcards = {"init": "dino", "backbone": "b", "fold": "0"}
    shown.take(job_info(1, "embed", wildcards | {"seed": "0"}))
    clock.now += 100
    shown.take(record("job_finished", job_id=1))
    assert shown.sum(clock.now) == "1 of 4 jobs done, 1 min 40 s, more than 3 min 20 s left"
    shown.take(job_info(2, "embed", wildcards | {"seed": "1"}))
    clock.now += 30
    assert shown.run.seconds_left(clock.now) == (170.0, False)


def test_a_job_that_is_tried_again_is_no_failure() -> None:
    shown, stream, clock = view(terminal=False)
    shown.take(record("run_info", stats={"report": 1, "total": 1}))
    shown.take(job_info(1, "report"))
    shown.take(record("job_error", "x", logging.ERROR, jobid=1))
    shown.take(record(None, "Trying to restart job 1."))
    shown.take(job_info(1, "report"))
    clock.now += 1
    shown.take(record("job_finished", job_id=1))
    shown.close()
    assert "start again: report" in stream.getvalue()
    assert stream.getvalue().endswith("Done: 1 of 1 jobs done in 1 s.\n")
