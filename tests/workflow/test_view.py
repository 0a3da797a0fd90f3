"""What people see of real Snakemake: on a terminal, in a pipe, when a job fails, at Ctrl-C, at their mistakes."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable

import pytest

from tests.terminal.emulator import Terminal
from tests.workflow.conftest import ROOT, Workflow

PROFILE = "Using workflow specific profile"
CLOCK = re.compile(r"\d\d:\d\d:\d\d ")
COLUMNS = 90


def on_terminal(
    flow: Workflow, *args: str, during: Callable[[int, str], None] = lambda pid, text: None, **env: str
) -> tuple[int, str]:
    """Run Snakemake on a pseudo-terminal of its own; (exit code, all that was written to it).

    Args:
        during: called after each read with the process and what was written so far.
    """
    process, master = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background of a shell
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        os.chdir(ROOT)
        command = flow.command(*args)
        os.execve(command[0], command, {**flow.env, "TERM": "xterm", "NO_COLOR": "1", **env})
    text, end = "", time.monotonic() + 300
    while True:
        ready, _, _ = select.select([master], [], [], 1.0)
        try:
            text += os.read(master, 1 << 16).decode() if ready else ""
        except OSError:  # the last writer has ended
            break
        during(process, text)
        assert time.monotonic() < end, text
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text


def screen(text: str) -> list[str]:
    """The lines that stay on the terminal, without the one that Snakemake prints before any plugin is loaded."""
    return [line for line in Terminal(300).write(text).lines() if not line.startswith(PROFILE)]


def test_a_run_on_a_terminal_shows_jobs_while_they_run_and_one_line_per_job_at_its_end(stubbed: Workflow) -> None:
    code, text = on_terminal(stubbed, "--cores", "2")
    assert code == 0, text
    lines = screen(text)
    assert lines[0] == "15 jobs to do"
    assert [line.split(",")[0] for line in lines[1:4]] == [
        "✓ phantom: draw the synthetic cohort", "✓ cohort: read and check scans", "✓ pretrain dino",
    ]  # fmt: skip
    assert len(lines) == 1 + 15 + 4
    assert lines[-4:-1] == [
        f"The page: {stubbed.folder}/results/phantom/report/report.html",
        f"The model: {stubbed.folder}/results/phantom/model",
        "The audit: passed: no finding is open; not checkable: patient",
    ]
    assert lines[-1].startswith("Done: 15 of 15 jobs done in ")
    assert "\x1b[J" in text, "nothing was redrawn"
    assert "{" not in text, "parameters are shown"


def test_ctrl_c_ends_with_one_line_and_no_exception(stubbed: Workflow) -> None:
    sent: list[int] = []

    def press(process: int, text: str) -> None:
        if not sent and "pretrain dino" in text and any(call.startswith("pretrain") for call in stubbed.calls()):
            sent.append(process)
            os.killpg(process, signal.SIGINT)  # as the terminal sends it, to Snakemake and its jobs

    code, text = on_terminal(stubbed, "--cores", "1", during=press, STUB_WAITS="pretrain")
    assert code == 1
    lines = screen(text)
    assert re.fullmatch(r"Stopped by Ctrl-C after .+: 2 of 15 jobs done; the same command resumes it\.", lines[-1]), (
        lines
    )
    assert not re.search("error|exception|traceback|The page", text, re.IGNORECASE)


def test_a_pipe_gets_plain_lines_and_the_error_of_a_failed_job_last(stubbed: Workflow) -> None:
    done = stubbed.run(
        "--cores", "1", STUB_FAILS="evaluate", STUB_SAYS="octdino evaluate: error: a.csv: row 3: no number"
    )
    assert done.returncode == 1
    lines = [CLOCK.sub("", line) for line in done.stderr.splitlines() if not line.startswith(PROFILE)]
    assert lines[:2] == ["15 jobs to do", "start: phantom: draw the synthetic cohort"]
    assert lines[2].startswith("done: phantom: draw the synthetic cohort, ")
    log = stubbed.folder / "logs/phantom/evaluate/evaluate.log"
    assert lines[-2:] == ["octdino evaluate: error: a.csv: row 3: no number", f"  log: {log}"]
    assert re.fullmatch(
        r"The run failed after .+: \d+ of 15 jobs done, 1 failed; the same command resumes it\.", lines[-3]
    )
    assert done.stderr.count("octdino evaluate: error") == 1
    assert "The page" not in done.stderr, "it was not written"
    assert "\x1b" not in done.stderr
    assert "Exception" not in done.stderr
    assert "{" not in done.stderr
    again = stubbed.run("--cores", "1", STUB_FAILS="verdict")
    assert f"The page: {stubbed.folder}/results/phantom/report/report.html" in again.stderr, "this run has written it"


def test_nothing_to_do_names_the_page_that_is_up_to_date(finished: Workflow) -> None:
    done = finished.run("--cores", "1")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stderr
    assert f"The page: {finished.folder}/results/phantom/report/report.html\n" in done.stderr
    other = finished.run("--cores", "1", "results/phantom/cohort/scans.h5")
    assert "The page" not in other.stderr, "it was not asked for, and may be stale"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--config", "cohort={nam: x}"], "octdino: error: config.yaml: cohort.nam: unknown key; did you mean name?"),
        (["nowhere.csv"], "snakemake: error: MissingRuleException: No rule to produce nowhere.csv"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], expected: str, stubbed: Workflow) -> None:
    done = stubbed.run("--cores", "1", *args)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(PROFILE)]
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_verbose_is_as_without_the_plugin(stubbed: Workflow) -> None:
    done = stubbed.run("--cores", "1", "--verbose", "results/phantom/cohort/scans.h5")
    assert done.returncode == 0
    for text in (
        "Building DAG of jobs...",
        "rule cohort:",
        "    output: results/phantom/cohort/manifest.csv",
        "steps (100%)",
    ):
        assert text in done.stderr
    assert "read and check scans" not in done.stderr


def test_an_error_in_the_view_leaves_plain_lines(stubbed: Workflow) -> None:
    (stubbed.folder / "sitecustomize.py").write_text(
        "import sys\n"
        "def trace(frame, event, arg):\n"
        "    if frame.f_code.co_name == 'region': raise ZeroDivisionError('in the view')\n"
        "import threading\n"
        "threading.setprofile(trace)\n"
    )
    code, text = on_terminal(stubbed, "--cores", "2", PYTHONPATH=str(stubbed.folder))
    assert code == 0, text
    assert text.count("the live view failed") == 1
    assert "done: verdict: check the findings of the audit" in text
    assert "Done: 15 of 15 jobs done in " in text


def test_a_reader_that_closes_the_pipe_does_not_stop_the_run(stubbed: Workflow) -> None:
    process = subprocess.Popen(
        stubbed.command("--cores", "2"), cwd=ROOT, env=stubbed.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=300) == 0
    assert (stubbed.folder / "results/phantom/audit/passed").is_file()
