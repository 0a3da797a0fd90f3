"""`octdino watch`: a table of running and recently ended jobs, refreshed until Ctrl-C."""

import time
from pathlib import Path
from typing import TextIO

from octdino.progress import duration
from octdino.terminal.screen import Screen, columns
from octdino.terminal.watched_jobs import WatchedJob, watched_jobs

SECONDS = 2.0  # between two tables
RECENT = 10  # jobs that have ended
HEADER = ["job", "state", "time", "last line", "loss", "kNN", "rate", "at"]


def watch(results: Path, stream: TextIO, seconds: float = SECONDS) -> None:
    """Show the jobs below a results folder; again and again on a terminal until Ctrl-C, else once.

    Raises:
        UserError: there is no such folder.
    """
    screen = Screen(stream)
    if not screen.live:
        for line in table(watched_jobs(results, time.time()), time.time()):
            screen.line(line)
        return
    try:
        while True:
            now = time.time()
            width, height = screen.size()
            screen.draw(table(watched_jobs(results, now), now, width - 1, height - 2))
            time.sleep(seconds)
    except KeyboardInterrupt:
        screen.drawn = []  # the last table stays


def table(jobs: list[WatchedJob], now: float, width: int | None = None, height: int | None = None) -> list[str]:
    """Return the lines of the table: running jobs, then the latest that have ended, and their counts.

    Args:
        width: of the terminal; None: lines are not cut.
        height: the most lines; None: all running jobs are shown.
    """
    if not jobs:
        return ["no job has written a log yet"]
    active = [job for job in jobs if job.state in ("running", "silent")]
    ended = [job for job in jobs if job.state not in ("running", "silent")]
    room = len(jobs) if height is None else max(height - 2, 1)
    shown = [*active, *ended[:RECENT]][:room]
    several = len({job.cohort for job in jobs}) > 1
    lines = columns([HEADER, *(_row(job, now, several) for job in shown)], right=(2, 3), width=width)
    counts = [
        f"{sum(job.state == state for job in jobs)} {state}" for state in ("running", "done", "failed", "stopped")
    ]
    silent = sum(job.state == "silent" for job in jobs)
    counts += [f"{silent} silent for more than ten minutes: killed?"] if silent else []
    if hidden := len(jobs) - len(shown):
        counts.append(f"{hidden} not shown")
    return [*lines, ", ".join(counts)]


def _row(job: WatchedJob, now: float, several: bool) -> list[str]:
    tail = job.tail
    active = job.state in ("running", "silent")
    left = tail.left(now) if job.state == "running" else None
    shown = "" if left is None else f"{duration(left)} left"
    if job.took is not None:
        shown = f"took {duration(job.took)}"
    at = tail.state if active else {"failed": tail.error, "stopped": tail.stopped}.get(job.state, "")
    return [
        f"{job.cohort}: {job.words}" if several else job.words,
        job.state,
        shown,
        f"{duration(max(now - tail.at, 0.0))} ago",
        job.scores.get("loss", ""),
        job.scores.get("kNN", ""),
        tail.rate if active else "",
        at,
    ]
