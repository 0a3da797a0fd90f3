"""The view of a run of Snakemake: a live region on a terminal, plain lines elsewhere, errors last and alone.

It is driven by `take`, with the records of Snakemake's logger (attributes as in snakemake-interface-logger-plugins),
and by `refresh`, about once per second. Nothing here depends on Snakemake.
"""

import logging
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from octdino.progress import duration
from octdino.terminal.dry_run import DryRun, Request
from octdino.terminal.job_words import job_words
from octdino.terminal.run_end import closing_lines
from octdino.terminal.run_jobs import TARGETS, Job, RunJobs
from octdino.terminal.screen import Screen, columns, cut

# Messages that do not concern whoever runs the workflow, or that the view shows in another form; the file in
# .snakemake/log has them. All other messages are shown.
NOISE = re.compile(
    r"Building DAG of jobs|Using shell: |Select jobs to execute|Conda environments: ignored|Singularity containers: "
    r"|Group jobs: inactive|Complete log\(s\): |Elapsed time: |Shutting down, this|Removing output files of failed job"
    r"|Assuming unrestricted shared filesystem|Config file .* is extended by|A stopped or killed run resumes"
    r"|Exiting because a job execution failed|    [^ ]|\d+ jobs have (missing|outdated) provenance|Touching output file"
    r"|Some jobs were triggered by provenance|Rules with provenance triggered|This was a dry-run|Reasons:|Host: "
    r"|Job \d+ has been submitted with SLURM jobid|Submitted job \d+ with external jobid|Trying to restart job"
)
QUIET_EVENTS = ("workflow_started", "progress", "resources_info", "job_started", "rulegraph", "debug_dag", "group_info")
STOP = re.compile(r"Terminating processes on user request|Cancelling snakemake on user request")
TERMINATED = re.compile(r"Will exit after finishing currently running jobs")
EXIT_STATUS = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)")
SCREEN_ROWS = 4  # of the terminal that stay free of running jobs


class RunView:
    """Takes the records of a run and shows them.

    Args:
        screen: where to.
        dry: nothing is done; a table says what would be.
        clock: seconds since the epoch, for tests.
    """

    def __init__(self, screen: Screen, dry: bool = False, clock: Callable[[], float] = time.time) -> None:
        self.screen, self.clock = screen, clock
        self.dry = DryRun() if dry else None
        self.run = RunJobs(begin=clock())
        self.errors: list[str] = []  # of Snakemake, not of a job
        self.stopped = ""
        self.exit_status: int | None = None

    def take(self, record: logging.LogRecord) -> None:
        """Show a record of Snakemake's logger."""
        event = str(getattr(record, "event", None) or "")
        handler = getattr(self, f"_{event}", None)
        if handler is not None:
            handler(record)
        elif event == "shellcmd":
            self.screen.line(str(getattr(record, "shellcmd", None) or getattr(record, "cmd", None) or ""))
        elif event not in QUIET_EVENTS:
            self._message(record)

    def refresh(self) -> None:
        """Draw the region of running jobs again."""
        if self.screen.live and self.run.jobs and not self.dry:
            self.screen.draw(self.region())

    def close(self) -> None:
        """Show the end of the run: the sum, then errors."""
        self.screen.clear()
        if self.dry:
            for line in self.dry.lines(self.screen.width()):
                self.screen.line(line)
        for text, color in closing_lines(self.run, self.errors, self.stopped, self.clock(), self.screen.width()):
            self.screen.line(text, color)

    def region(self) -> list[str]:
        """Return the lines of the live region: running jobs and the sum."""
        now, (width, height) = self.clock(), self.screen.size()
        running = self.run.running()
        for job in running:
            job.look()
        self.run.most = max(self.run.most, sum(not job.waiting for job in running))
        shown = running[: max(height - SCREEN_ROWS, 1)]
        rows = [self._row(job, now) for job in shown]
        lines = columns(rows, right=(1, 2), width=width - 1)  # the rate is the first to be cut
        if more := len(running) - len(shown):
            lines.append(f"and {more} more, running or waiting")
        return [*lines, self.sum(now)]

    def sum(self, now: float) -> str:
        """Return the line with the number of jobs, the time so far and the time left."""
        run = self.run
        counts = [f"{len(run.done)} of {run.total} jobs done"]
        for state in ("failed", "stopped"):
            if ended := run.ended(state):
                counts.append(f"{len(ended)} {state}")
        counts.append(duration(now - run.begin))
        seconds, known = run.seconds_left(now) or (0.0, False)
        if seconds >= 1:
            counts.append(f"{'about' if known else 'more than'} {duration(seconds)} left")
        return cut(", ".join(counts), self.screen.size()[0] - 1)

    def _row(self, job: Job, now: float) -> list[str]:
        """Return the cells of a running job: words, time left, time so far, state, rate."""
        took, tail = duration(job.seconds(now)), job.tail
        if tail is None:
            return [job.words, "", took, "waits on the cluster" if job.waiting else "starting", ""]
        left = tail.left(now)
        return [job.words, "" if left is None else f"{duration(left)} left", took, tail.progress, tail.rate]

    def _run_info(self, record: logging.LogRecord) -> None:
        stats = dict(getattr(record, "stats", None) or {})
        self.run.want(stats)
        if not self.dry and self.run.total:
            self.screen.line(f"{self.run.total} {'job' if self.run.total == 1 else 'jobs'} to do")

    def _job_info(self, record: logging.LogRecord) -> None:
        values: dict[str, Any] = record.__dict__
        rule, number = str(values["rule_name"]), int(values["jobid"])
        if self.dry:
            request = Request.of(int(values.get("threads") or 1), dict(values.get("resources") or {}))
            self.dry.add(rule, str(values.get("reason") or ""), request)
            return
        if rule in TARGETS:
            return
        again = number in self.run.jobs
        logs = [Path(str(log).split(" (")[0]) for log in values.get("log") or []]
        job = Job(
            number, rule, job_words(rule, values.get("wildcards") or {}), logs[0].absolute() if logs else None,
            self.clock(), bool(values.get("local", True)),
        )  # fmt: skip
        self.run.start(job)
        if not self.screen.live:
            self._plain("start again" if again else "start", job)
        self.refresh()

    def _job_finished(self, record: logging.LogRecord) -> None:
        number = getattr(record, "job_id", getattr(record, "jobid", None))
        if number is not None and (job := self.run.end(int(number), "done", self.clock())):
            self._show_end(job)

    def _job_error(self, record: logging.LogRecord) -> None:
        job = self.run.end(int(record.__dict__["jobid"]), "failed", self.clock())
        if job is None:
            return
        job.exit_status, self.exit_status = self.exit_status, None
        if self.stopped or (job.tail and job.tail.stopped and not job.tail.error):
            job.state = "stopped"
        self._show_end(job)

    def _group_error(self, record: logging.LogRecord) -> None:
        """The jobs of a group follow with an error each."""

    def _error(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if STOP.search(text):
            self.stopped = self.stopped or "Ctrl-C"
        elif found := EXIT_STATUS.search(text):  # of the job whose error follows
            self.exit_status = int(found[1]) if found[1] else _shell_status(found[2])
        elif "At least one job did not complete successfully" not in text:
            self.errors.append(text)

    def _message(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if STOP.match(text):
            self.stopped = "Ctrl-C"
            self.screen.line("Ctrl-C: training jobs save and stop")
        elif TERMINATED.match(text):
            self.stopped = self.stopped or "a signal"
        elif record.levelno >= logging.WARNING:
            if not NOISE.match(text) and text.strip():
                self.screen.line(text.strip(), "yellow" if record.levelno < logging.ERROR else "red")
        elif text.strip() and text != "None" and not NOISE.match(text):
            self.screen.line(text.rstrip())

    def _show_end(self, job: Job) -> None:
        color = {"done": "green", "failed": "red"}.get(job.state, "yellow")
        if not self.screen.live:
            self._plain(job.state, job, color)
            return
        mark = {"done": "✓", "failed": "✗"}.get(job.state, "-") if self.screen.unicode else "-"
        took = duration(job.seconds(self.clock()))
        text = f"{mark} {job.words}, {took if job.state == 'done' else f'{job.state} after {took}'}"
        self.screen.line(cut(text, self.screen.size()[0] - 1), color)
        self.refresh()

    def _plain(self, what: str, job: Job, color: str = "") -> None:
        now = self.clock()
        stamp = time.strftime("%H:%M:%S", time.localtime(now))
        if job.ended is None:
            self.screen.line(f"{stamp} {what}: {job.words}")
            return
        self.screen.line(f"{stamp} {what}: {job.words}, {duration(job.seconds(now))}; {self.sum(now)}", color)


def _shell_status(name: str) -> int | None:
    """Return the exit status of a shell for a command that a signal killed: 128 plus the signal's number."""
    try:
        return 128 + signal.Signals[name].value
    except KeyError:  # a signal of another system
        return None
