"""`octdino watch` on results and logs as a run leaves them."""

import io
import os
from pathlib import Path

import pytest

from octdino import cli
from octdino.terminal.watch import table, watch
from octdino.terminal.watched_jobs import watched_jobs

NOW = 1_700_000_000.0
EPOCH = (
    "2023-11-14 22:13:00 octdino.pretrain: epoch 3/24 loss 3.41 knn_auroc 0.71 210 img/s, data wait 0.1 %,"
    " augmentation 9.0 %, MFU 3 %, 2 min 5 s left\n"
)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One job of each state."""
    monkeypatch.setenv("TZ", "UTC")
    logs, results = tmp_path / "logs/c", tmp_path / "results/c"

    def write(path: Path, text: str, age: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (NOW - age, NOW - age))

    write(logs / "pretrain/dino.r18.fold0-seed0.log", EPOCH, 5)
    write(logs / "pretrain/dino.r18.fold0-seed1.log", EPOCH, 3600)
    write(logs / "pretrain/simclr.r18.fold0-seed0.log", "done\n", 50)
    write(results / "benchmarks/pretrain.simclr.r18.fold0-seed0.tsv", "s\th:m:s\n125.5\t0:02:05\n", 49)
    history = "epoch,loss,knn_auroc\n1,5.0,0.5\n2,4.0,0.61234\n3,3.0,\n"
    write(results / "pretrain/simclr/r18/fold0-seed0/history.csv", history, 49)
    write(logs / "evaluate/evaluate.log", "octdino evaluate: error: a.csv: row 3\n", 60)
    write(results / "benchmarks/evaluate.tsv", "s\n9\n", 900)  # of an earlier run
    stopped = "octdino classify: stopped by SIGTERM after saving; run the same command again to resume\n"
    write(logs / "classify/dino-linear.r18.f0.05.fold0-seed0.log", stopped, 70)
    write(logs / "cohort/notes.txt", "x", 1)
    return tmp_path / "results"


def test_each_job_has_its_state_progress_and_scores(results: Path) -> None:
    lines = table(watched_jobs(results, NOW), NOW)
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[1:-1]]
    assert cells[0] == [
        "pretrain dino, r18, fold 0, seed 0", "running", "1 min 45 s left", "5 s ago", "3.41", "0.71", "210 img/s",
        "epoch 3/24",
    ]  # fmt: skip
    assert cells[1][:3] == ["pretrain dino, r18, fold 0, seed 1", "silent", "1 h 0 min ago"]
    assert cells[1][-1] == "epoch 3/24"
    assert cells[2] == ["pretrain simclr, r18, fold 0, seed 0", "done", "took 2 min 6 s", "50 s ago", "3", "0.6123"]
    assert cells[3] == [
        "evaluate: compare the arms on test patients", "failed", "1 min 0 s ago",
        "octdino evaluate: error: a.csv: row 3",
    ]  # fmt: skip
    assert cells[4][1:2] == ["stopped"]
    assert lines[-1] == "1 running, 1 done, 1 failed, 1 stopped, 1 silent for more than ten minutes: killed?"


def test_one_cohort_can_be_watched_alone(results: Path) -> None:
    assert watched_jobs(results / "c", NOW) == watched_jobs(results, NOW)


def test_the_table_fits_a_terminal(results: Path) -> None:
    lines = table(watched_jobs(results, NOW), NOW, width=60, height=4)
    assert len(lines) == 4
    assert max(map(len, lines[:-1])) <= 60
    assert lines[-1].endswith("3 not shown")


def test_a_pipe_gets_the_table_once_and_plain(results: Path) -> None:
    stream = io.StringIO()
    watch(results, stream)
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("pretrain simclr") == 1


def test_damaged_files_are_left_out_without_an_error(results: Path) -> None:
    (results / "c/benchmarks/pretrain.simclr.r18.fold0-seed0.tsv").write_bytes(b"\xff\x00s\n1,")
    (results / "c/pretrain/simclr/r18/fold0-seed0/history.csv").write_bytes(b"\x00\xff,loss\n")
    (results.parent / "logs/c/evaluate/evaluate.log").write_bytes(os.urandom(5000))
    assert len(watched_jobs(results, NOW)) == 5


def test_no_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == (
        f"octdino watch: error: {tmp_path}/none: no such folder; expected results/ or results/{{cohort}} of a run\n"
    )
    (tmp_path / "results").mkdir()
    assert cli.main(["watch", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == "no job has written a log yet\n"
