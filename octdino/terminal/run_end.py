"""The last lines of a run: the sum, then the error of each failed job alone, with the path of its log."""

import re
import signal

from octdino.progress import duration
from octdino.terminal.run_jobs import Job, RunJobs

MOST_ERRORS = 10
TRACE = re.compile(r'  File "|\s*$')  # lines of Snakemake's messages that name places in its code
RESUME = "the same command resumes it"


def closing_lines(
    run: RunJobs, errors: list[str], stopped: str, now: float, width: int | None = None
) -> list[tuple[str, str]]:
    """Return (text, color) of the last lines of a run.

    Args:
        errors: messages of Snakemake that are no job's.
        stopped: what stopped the run: "Ctrl-C"; empty: nothing did.
        width: of the terminal, None: none.
    """
    lines: list[tuple[str, str]] = []
    failed = run.ended("failed")
    done, took = f"{len(run.done)} of {run.total} jobs done", duration(now - run.begin)
    if stopped:
        lines.append((f"Stopped by {stopped} after {took}: {done}; {RESUME}.", "yellow"))
    elif run.jobs and (failed or errors):
        lines.append((f"The run failed after {took}: {done}, {len(failed)} failed; {RESUME}.", "bold"))
    elif run.jobs:
        lines.append((f"Done: {done} in {took}.", "bold"))
    for text in errors:
        lines += [(line, "red") for line in snakemake_error(text)]
    for job in failed[:MOST_ERRORS]:
        lines += job_error(job)
    if (more := len(failed) - MOST_ERRORS) > 0:
        lines.append((f"and {more} more jobs failed; their logs are beside these", "red"))
    return lines


def job_error(job: Job) -> list[tuple[str, str]]:
    """Return the error of a failed job: the one line of octdino, or the end of its log; then the log's path."""
    job.look()
    log = [(f"  log: {job.log}", "")] if job.log else []
    if job.tail and job.tail.error:
        return [(job.tail.error, "red"), *log]
    last = job.tail.last if job.tail else []
    ended = f"{job.words}: failed{_status(job.exit_status)}"
    if not last:
        return [(f"{ended} without a message", "red"), *log]
    return [(f"{ended}; its log ends with:", "red"), *((f"  {line}", "") for line in last), *log]


def _status(code: int | None) -> str:
    """Return an exit status in words; that of a shell is 128 plus the number of a signal."""
    if code is None:
        return ""
    if code > 128:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            return f" with exit status {code}"
        memory = ", which the system sends where memory is short," if name == "SIGKILL" else ""
        return f", killed by {name}{memory}"
    return f" with exit status {code}"


def snakemake_error(text: str) -> list[str]:
    """Return an error of Snakemake for people: its name and message on one line, without places in its code.

    The error of a Snakefile itself is left as it is: it concerns whoever changes the workflow.
    """
    head, *rest = text.strip().splitlines() or [""]
    if " in file " in head or head.startswith("Traceback"):
        return [head, *rest]
    body = [line.strip() for line in rest if not TRACE.match(line)]
    files = body[20:]
    joined = " ".join([head.rstrip("."), *body[:20]]) + (f" and {len(files)} more lines" if files else "")
    return [f"snakemake: error: {joined.strip()}"]
