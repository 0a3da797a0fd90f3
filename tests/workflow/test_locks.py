"""What a killed Snakemake leaves: which locks and jobs the next run removes, and which it leaves alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from octdino import snakemake_locks as locks
from octdino.errors import UserError
from tests.workflow.conftest import FEW, ROOT, Workflow, until

# Sends SIGTERM to Snakemake, by Snakemake itself, while it holds the scheduler's lock as a job ends.
SIGTERM_AS_A_JOB_ENDS = """
import os, signal, snakemake.cli, snakemake.scheduling.job_scheduler as module
shown = module.JobScheduler.progress
def progress(scheduler):
    os.kill(os.getpid(), signal.SIGTERM)
    shown(scheduler)
module.JobScheduler.progress = progress
snakemake.cli.main()
"""


def locks_of(folder: Path) -> dict[str, str]:
    """Snakemake's own locks."""
    return {path.name: path.read_text() for path in folder.glob(".snakemake/locks/*.lock")}


def record_of(folder: Path) -> Path:
    """The only record of a run."""
    (path,) = folder.glob(".snakemake/octdino/*.json")
    return path


def change(folder: Path, **values: Any) -> None:
    """Change what a record says."""
    path = record_of(folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which Snakemake was killed as it pretrained."""
    flow = Workflow(tmp_path_factory.mktemp("killed"), stub=True)
    flow.configure(FEW)
    process = subprocess.Popen(
        flow.command("--cores", "2"), cwd=ROOT, env={**flow.env, "STUB_WAITS": "pretrain"}, start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: any(call.startswith("pretrain") for call in flow.calls()))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert set(locks_of(flow.folder)) == {"0.input.lock", "0.output.lock"}
    return flow.folder


@pytest.fixture
def killed(killed_once: Path, tmp_path: Path) -> Workflow:
    """A copy of it, to be changed."""
    flow = Workflow(tmp_path, stub=True)
    shutil.copytree(killed_once, tmp_path, dirs_exist_ok=True)
    return flow


# Real runs of Snakemake


def test_the_lock_of_a_dead_process_of_this_host_is_removed(killed: Workflow) -> None:
    change(killed.folder, pid=os.getpid())  # another process has got its id since
    done = killed.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    assert not locks_of(killed.folder)
    assert not list(killed.folder.glob(".snakemake/octdino/*")), "a run that has ended leaves no record"


@pytest.mark.parametrize(
    ("values", "owner"),
    [
        ({"host": "login2"}, "process {pid} on host login2 holds its lock"),
        # A living process whose file lock, as on Lustre with `localflock`, says nothing.
        (
            {"pid": os.getpid(), "started": psutil.Process().create_time()},
            f"process {os.getpid()} on host {os.uname().nodename} holds its lock",
        ),
        ({"locks": {".snakemake/locks/0.input.lock": 1}}, "another Snakemake, or one that was killed, holds its lock"),
    ],
    ids=["foreign host", "living process", "later lock of the same name"],
)
def test_any_other_lock_stays(values: dict[str, Any], owner: str, killed: Workflow) -> None:
    pid = json.loads(record_of(killed.folder).read_text())["pid"]
    change(killed.folder, **values)
    before, record = locks_of(killed.folder), record_of(killed.folder).read_text()
    done = killed.run("--cores", "2")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("octdino: error: ")]
    assert owner.format(pid=pid) in line
    assert "give `snakemake --unlock`, then the same command again" in line
    assert locks_of(killed.folder) == before
    if "locks" not in values:  # a dead run of this host without a lock has nothing left
        assert record_of(killed.folder).read_text() == record


def test_what_starts_no_job_leaves_every_lock_and_record_alone(killed: Workflow) -> None:
    """The dead process is of this host, so that a run would remove its lock."""
    before, record = locks_of(killed.folder), record_of(killed.folder).read_text()
    *done, (code, output) = killed.many([["-n"], ["--lint"], ["--rulegraph"], ["--summary"], ["--touch"]])
    assert [code for code, _ in done] == [0] * 4, done
    assert (code, "cannot be locked" in output) == (2, True), "to touch the results needs the lock"
    assert locks_of(killed.folder) == before
    assert record_of(killed.folder).read_text() == record
    ((code, output),) = killed.many([["--unlock"]])
    assert code == 0, output
    assert not locks_of(killed.folder)


# The functions by themselves


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is a folder of its own."""
    (tmp_path / ".snakemake/octdino").mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCTDINO_SUBMITTED", "")  # what is set to it ends with the test


def write_record(name: str, **values: Any) -> Path:
    """The record of a run that was killed on this host: its process has begun when no process had."""
    record = {"host": os.uname().nodename, "user": os.getuid(), "pid": os.getpid(), "started": 1.0, "locks": {}}
    path = Path(".snakemake/octdino", f"{name}.json")
    path.write_text(json.dumps({**record, "slurm": None, "status": None, "cancel": None, **values}))
    return path


def write_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """squeue lists job 7 of the run `dead` and job 8 of each other run, until they are canceled."""
    programs = tmp_path / "programs"
    programs.mkdir()
    find = '[ "$3" = --name ] || exit 3; job=8; [ "$4" = dead ] && job=7;'
    write_program(programs, "squeue", f"{find} grep -qw $job {tmp_path}/canceled || echo $job\n")
    write_program(programs, "scancel", f'echo "$@" >> {tmp_path}/canceled\n')
    (tmp_path / "canceled").touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path / "canceled"


def test_only_jobs_of_the_dead_run_are_canceled(slurm: Path) -> None:
    dead = write_record("0", slurm="dead")
    others = [
        write_record("1", slurm="foreign", host="login2"),
        write_record("2", slurm="living", started=psutil.Process().create_time()),
        write_record("3", slurm="colleague", user=os.getuid() + 1),
        Path(".snakemake/octdino/damaged.json"),
    ]
    others[-1].write_text('{"host": ')
    locks.clean_up_after_the_dead()
    assert slurm.read_text() == "7\n"
    assert not dead.exists()
    assert all(path.exists() for path in others)


def test_a_record_that_a_living_process_holds_is_left_alone(slurm: Path) -> None:
    path = write_record("0", slurm="dead")
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX);"
         " print('held', flush=True); sys.stdin.read()", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout
    holder.stdout.readline()
    locks.clean_up_after_the_dead()
    holder.communicate()
    assert path.exists()
    assert not slurm.read_text()


def test_jobs_that_do_not_end_or_cannot_be_asked_about_are_one_line(
    slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_record("0", slurm="dead")
    monkeypatch.setattr(locks, "SECONDS_TO_END", 0)
    write_program(slurm.parent / "programs", "scancel", "exit 0\n")
    with pytest.raises(UserError, match=r"^jobs 7 do not end; cancel them by hand$"):
        locks.clean_up_after_the_dead()
    write_program(slurm.parent / "programs", "squeue", "exit 1\n")
    with pytest.raises(UserError, match=r"^jobs that a killed Snakemake has left cannot be ended: .*squeue"):
        locks.clean_up_after_the_dead()
    assert path.exists(), "the next run tries once more"


def test_jobs_of_another_scheduler_are_those_that_the_run_has_noted(tmp_path: Path) -> None:
    ended = f"grep -qw $1 {tmp_path}/canceled && echo failed && exit; [ $1 = 5 ] && echo success && exit"
    write_program(tmp_path, "status", f"{ended}; echo running\n")
    write_program(tmp_path, "cancel", f'echo "$@" >> {tmp_path}/canceled\n')
    (tmp_path / "canceled").touch()
    path = write_record("0", status=f"{tmp_path}/status", cancel=f"{tmp_path}/cancel")
    path.with_suffix(".jobs").write_text("5\n6\n9\n")
    locks.clean_up_after_the_dead()
    assert (tmp_path / "canceled").read_text() == "6 9\n"
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(("end", "stays"), [(None, False), (RuntimeError, False), (KeyboardInterrupt, True)])
def test_a_record_stays_only_where_jobs_may_be_left(end: type[BaseException] | None, stays: bool) -> None:
    """A KeyboardInterrupt leaves Snakemake only while it cancels jobs because of an earlier one."""
    plugin = SimpleNamespace(common_settings=SimpleNamespace(dryrun_exec=False, touch_exec=False))

    def execute(**_: Any) -> None:
        locks.record_this_run(workflow)
        if end:
            raise end

    workflow = SimpleNamespace(is_main_process=True, execute=execute, executor_settings=None)
    workflow.persistence = SimpleNamespace(_lockfile={})
    workflow.scheduler = SimpleNamespace(_executor=SimpleNamespace(run_uuid="u"))
    locks.guard(workflow)
    with pytest.raises(end) if end else nullcontext():
        workflow.execute(executor_plugin=plugin)
    assert len(list(Path(".snakemake/octdino").glob("*.json"))) == stays


# SIGTERM


def test_sigterm_as_a_job_ends_does_not_hang(stubbed: Workflow) -> None:
    arguments = stubbed.command("--cores", "2")[1:]
    process = subprocess.Popen(
        [sys.executable, "-c", SIGTERM_AS_A_JOB_ENDS, *arguments], cwd=ROOT, env=stubbed.env, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Stopped by a signal after " in said
    assert not any(call.startswith("report") for call in stubbed.calls()), "it ends early"


def test_a_handler_that_waits_for_the_main_thread_is_not_run_in_it() -> None:
    held, handled = threading.Lock(), threading.Event()

    def handler(*_: object) -> None:
        if held.acquire(timeout=5):
            handled.set()

    before = signal.signal(signal.SIGTERM, handler)
    try:
        locks.handle_sigterm_in_a_thread()
        with held:
            os.kill(os.getpid(), signal.SIGTERM)
        assert handled.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)
