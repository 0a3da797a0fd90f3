"""Cleanup after a killed Snakemake: its lock files and its jobs on a cluster; imported by the Snakefile only.

Each run of Snakemake that starts jobs has a record below .snakemake/octdino until it ends: host, process, lock files
and jobs. The next run on the same host removes the lock files and cancels the jobs of a dead process, and no others.
Dry runs, --lint, --unlock and graphs read the Snakefile too, but do not call `workflow.execute` with an executor that
starts jobs. This is no .smk file, since Snakemake would report it as the place of every error that passes `guard`.
"""

import fcntl
import functools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psutil  # comes with Snakemake
from snakemake.exceptions import LockException

from octdino.errors import EXIT_USER, UserError

RECORDS = Path(".snakemake", "octdino")  # in the working directory, like Snakemake's own locks
TEXT = (str, type(None))
FIELDS: dict[str, type | tuple[type, ...]] = {
    "host": str, "user": int, "pid": int, "started": float, "locks": dict,
    "slurm": TEXT, "lsf": TEXT, "status": TEXT, "cancel": TEXT,
}  # fmt: skip
NO_LSF_JOB = r"not found|No (unfinished|matching) job"  # it then fails as it does where it gets no answer
SECONDS_TO_END = 300  # for jobs that are canceled: training saves first
Record = dict[str, Any]

recorded: list[IO[str]] = []  # the record of this run, open and locked until this process ends


def guard(workflow: Any, check: Callable[[], None] = lambda: None, at_end: Callable[[], None] = lambda: None) -> None:
    """Clean up after dead runs before `workflow` starts a job, and remove this run's record when it ends.

    Args:
        check: raises UserError if the run must not be planned; called when the command line is known, which it is not
            while the Snakefile is read.
        at_end: called after a run that starts jobs or finds nothing to do, failed or not; also after "Nothing to be
            done", which calls no `onsuccess`.
    """
    if not workflow.is_main_process:  # inside of a cluster's job
        return
    execute = workflow.execute

    @functools.wraps(execute)
    def run(**arguments: Any) -> Any:
        kind = arguments["executor_plugin"].common_settings
        starts_jobs = not (kind.dryrun_exec or kind.touch_exec)
        try:
            check()
            if starts_jobs:
                clean_up_after_the_dead()
            done = execute(**arguments)
        except (LockException, UserError) as error:
            line = who_holds_the_lock() if isinstance(error, LockException) else error
            print(f"octdino: error: {line}", file=sys.stderr)
            sys.exit(EXIT_USER)
        except Exception:
            if starts_jobs:
                at_end()
            raise
        else:
            if starts_jobs:
                at_end()
            return done
        finally:
            # A second Ctrl-C, while jobs are being canceled, keeps the record: the next run cancels the rest.
            if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
                forget_this_run()

    workflow.execute = run


def record_this_run(workflow: Any) -> None:
    """Write the record of this run, before it submits the first job and after Snakemake has taken its lock."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    path = RECORDS / f"{uuid.uuid4()}.json"
    settings, executor = workflow.executor_settings, workflow.scheduler._executor
    plugin = type(executor).__module__.removeprefix("snakemake_executor_plugin_")
    values: Record = {
        "host": socket.gethostname(),
        "user": os.getuid(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        # With the time of each: after --unlock another run may have a lock of the same name.
        "locks": {
            os.path.relpath(lock): Path(lock).stat().st_mtime_ns
            for lock in getattr(workflow.persistence, "_lockfile", {}).values()
        },
        # The jobs of SLURM and LSF have the run's name; profiles/generic writes down each job that it submits.
        "slurm": executor.run_uuid if plugin == "slurm" else None,
        "lsf": executor.run_uuid if plugin == "lsf" else None,
        "status": getattr(settings, "status_cmd", None),
        "cancel": getattr(settings, "cancel_cmd", None),
    }
    file = path.open("w")
    try_flock(file)
    file.write(json.dumps(values, indent=1) + "\n")
    file.flush()
    recorded.append(file)
    os.environ["OCTDINO_SUBMITTED"] = str(path.with_suffix(".jobs"))


def forget_this_run() -> None:
    """Remove the record of a run that ends by itself."""
    while recorded:
        with recorded.pop() as file:
            remove_record(Path(file.name))


def remove_record(path: Path) -> None:
    """Remove a record and its list of jobs."""
    path.with_suffix(".jobs").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def try_flock(file: IO[str]) -> bool:
    """Lock an open file; return whether this process now holds the lock, which the system releases at its end.

    Not sufficient alone: on some file systems (Lustre with `localflock`) each machine has its own locks, and some have
    none.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def lives(record: Record) -> bool:
    """Whether the process of a record of this host still runs; a later process with the same id started later."""
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["started"]) < 2  # the system's clock may be adjusted
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def read_records() -> list[tuple[Path, Record]]:
    """Return (path, values) of each record, without damaged ones."""
    found = []
    for path in sorted(RECORDS.glob("*.json")):
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(values, dict) and all(isinstance(values.get(key), kind) for key, kind in FIELDS.items()):
            found.append((path, values))
    return found


def clean_up_after_the_dead() -> None:
    """Cancel the jobs and remove the locks of each Snakemake that was killed on this host in this folder.

    The canceled jobs end before new ones start: two jobs would write the same files, and the lock of the first trainer
    of a run refuses a second one. Training saves at SIGTERM, so the next job resumes.

    Raises:
        UserError: jobs do not end, or the scheduler does not respond.
    """
    me = (socket.gethostname(), os.getuid())
    for path, record in read_records():
        if (record["host"], record["user"]) != me or lives(record):
            continue
        with path.open("a") as file:
            if not try_flock(file):
                continue  # another run cleans up, or the file system has no locks
            end_leftover_jobs(path, record)
            for name, modified in record["locks"].items():
                lock = Path(name)
                if lock.exists() and lock.stat().st_mtime_ns == modified:
                    lock.unlink()
            remove_record(path)


def end_leftover_jobs(path: Path, record: Record) -> None:
    """Cancel the jobs of a dead run that its scheduler still lists, and wait for their end."""
    found = leftover_jobs(path, record)
    if not found:
        return
    names = ", ".join(found)
    print(
        f"octdino: a killed Snakemake has left jobs {names}; they save and end before anything begins", file=sys.stderr
    )
    cancel = shlex.split("scancel" if record["slurm"] else "bkill" if record.get("lsf") else record["cancel"])
    call([*cancel, *found], check=False)  # a job may have ended by now
    end = time.monotonic() + SECONDS_TO_END
    while found and time.monotonic() < end:
        time.sleep(1)
        found = leftover_jobs(path, record)
    if found:
        raise UserError(f"jobs {', '.join(found)} do not end; cancel them by hand")


def leftover_jobs(path: Path, record: Record) -> list[str]:
    """Return the jobs of a run that have not ended."""
    if record["slurm"]:
        listed = call(["squeue", "-h", "--me", "--name", record["slurm"], "-o", "%A"])
        return sorted(set(listed.split()))
    if record.get("lsf"):
        listed = call(["bjobs", "-noheader", "-o", "jobid", "-J", f"*{record['lsf']}*"], none=NO_LSF_JOB)
        return sorted(set(listed.split()))
    submitted = path.with_suffix(".jobs")
    if not (submitted.exists() and record["status"] and record["cancel"]):
        return []
    jobs = dict.fromkeys(submitted.read_text().split())
    status = shlex.split(record["status"])
    return [job for job in jobs if call([*status, job]).strip() == "running"]


def call(command: list[str], check: bool = True, none: str = r"(?!)") -> str:
    """Return the output of a command of the scheduler; that of a failed one only if its error matches `none`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        if not re.search(none, done.stderr):
            sys.stderr.write(done.stderr)
            if check:
                done.check_returncode()
        return done.stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"jobs that a killed Snakemake has left cannot be ended: {error}") from None


def who_holds_the_lock() -> str:
    """Return the one-line error for a folder that another run has locked."""
    owners = [f"process {record['pid']} on host {record['host']}" for _, record in read_records()]
    owner = " or ".join(owners) or "another Snakemake, or one that was killed,"
    return (
        f"the folder {Path.cwd()} cannot be locked: {owner} holds its lock. Wait for its end; if it runs no more,"
        " give `snakemake --unlock`, then the same command again"
    )


def handle_sigterm_in_a_thread() -> None:
    """Run Snakemake's handler of SIGTERM in a thread of its own, where it cannot deadlock.

    Python runs a handler in the main thread, between any two of its instructions. Snakemake's handler waits for a lock
    that the interrupted main thread holds while a job ends or jobs are selected: the process would hang for ever.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        signal.signal(signal.SIGTERM, lambda *args: threading.Thread(target=handler, args=args).start())
