"""The jobs below a results folder, from log files, benchmarks and histories; nothing of Snakemake is asked.

So it works beside a running workflow, over a shared disk from another machine, and after the workflow was killed.
"""

import csv
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from octdino.errors import UserError
from octdino.terminal.job_logs import LogTail, read_tail, scores_of
from octdino.terminal.job_words import job_of_log, job_words

SILENT = 600.0  # seconds after which a job that wrote nothing may have been killed
CLOCKS = 2.0  # seconds by which times of files may differ
RUN_FOLDERS = {"pretrain": "pretrain/{method}/{backbone}/fold{fold}-seed{seed}"}


@dataclass(frozen=True)
class WatchedJob:
    """One job, by its log.

    Attributes:
        state: "running"; "silent": it has not ended and wrote nothing for SILENT seconds; "done", "failed", "stopped".
        took: seconds that a finished job took, from its benchmark; None if unknown.
        scores: "loss" and "kNN" of a pretraining.
    """

    cohort: str
    words: str
    state: str
    tail: LogTail
    took: float | None
    scores: dict[str, str]


def cohort_folders(results: Path) -> list[tuple[str, Path, Path]]:
    """Return (cohort, its results, its logs) of `results`, which is results/ or results/{cohort}.

    The logs are in logs/{cohort} beside results/, where the workflow writes them.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; expected results/ or results/{{cohort}} of a run")
    top = results.absolute()
    own = top.parent.parent / "logs" / top.name
    if own.is_dir():
        return [(top.name, top, own)]
    logs = top.parent / "logs"
    try:
        names = sorted({path.name for folder in (top, logs) if folder.is_dir() for path in folder.iterdir()})
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    return [(name, top / name, logs / name) for name in names if (logs / name).is_dir()]


def watched_jobs(results: Path, now: float) -> list[WatchedJob]:
    """Return the jobs that have a log: those that run first, then the others, the latest first."""
    jobs = [job for folders in cohort_folders(results) for job in _jobs_of(*folders, now)]
    order = {"running": 0, "silent": 1}
    return sorted(jobs, key=lambda job: (order.get(job.state, 2), -job.tail.at, job.words))


def _jobs_of(cohort: str, results: Path, logs: Path, now: float) -> Iterator[WatchedJob]:
    for log in logs.rglob("*.log"):
        job = job_of_log(log.relative_to(logs).as_posix())
        if job is None or (tail := _tail(log)) is None:
            continue
        rule, wildcards = job
        scores = tail.scores
        benchmark = results / "benchmarks" / (f"{_benchmark(rule, log)}.tsv")
        took = seconds_of_benchmark(benchmark) if _modified(benchmark) >= tail.at - CLOCKS else None
        if took is not None and rule in RUN_FOLDERS:
            scores = last_scores(results / RUN_FOLDERS[rule].format(**wildcards) / "history.csv") or scores
        yield WatchedJob(cohort, job_words(rule, wildcards), _state(tail, took, now), tail, took, scores)


def _tail(log: Path) -> LogTail | None:
    """Return the end of a log, which is read again only if it has changed."""
    try:
        status = log.stat()
    except OSError:
        return None
    return _tail_of(log, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _tail_of(log: Path, modified: int, size: int) -> LogTail | None:
    return read_tail(log)


def _benchmark(rule: str, log: Path) -> str:
    """Return the name of a job's benchmark, as workflow/rules/*.smk name it."""
    if log.stem in ("model", rule):
        return rule
    return log.stem if rule == "clinical" else f"{rule}.{log.stem}"


def _state(tail: LogTail, took: float | None, now: float) -> str:
    if took is not None:
        return "done"
    if tail.error:
        return "failed"
    if tail.stopped:
        return "stopped"
    return "running" if now - tail.at < SILENT else "silent"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def seconds_of_benchmark(path: Path) -> float | None:
    """Return the seconds in a benchmark of Snakemake; None if there is none that can be read."""
    row = _last_row(path, "\t")
    try:
        seconds = float(row.get("s", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def last_scores(path: Path) -> dict[str, str]:
    """Return loss and kNN score of the last epoch that has one, from a history.csv; none if it cannot be read."""
    row = _last_row(path, ",", filled=True)
    short = {}
    for name, text in row.items():
        try:
            short[name] = f"{float(text):.4g}"
        except ValueError:
            continue
    return scores_of([word for pair in short.items() for word in pair])


def _last_row(path: Path, delimiter: str, filled: bool = False) -> dict[str, str]:
    """Return the last row of a small table; with `filled`, empty cells have the value of the row above them."""
    values: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter=delimiter):
                cells = {key: text for key, text in row.items() if isinstance(key, str) and isinstance(text, str)}
                values = values | {key: text for key, text in cells.items() if text or not filled}
    except (OSError, ValueError, csv.Error):
        return {}
    return values
