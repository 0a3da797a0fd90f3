"""The jobs of a run of Snakemake: what runs, what ended and how, what is left and how long it may take."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from octdino.terminal.job_logs import LogTail, read_tail

TARGETS = ("all", "replicate")  # rules that only name files: no jobs for people


@dataclass
class Job:
    """One job that was started.

    Attributes:
        words: what it does.
        log: its log file; None: it has none.
        started, ended: seconds since the epoch; `ended` is None while it runs.
        local: it runs on this machine, not as a job of a cluster, where it may wait for a long time.
        state: "running", "done", "failed" or "stopped".
        exit_status: of its command, if Snakemake named it.
    """

    number: int
    rule: str
    words: str
    log: Path | None
    started: float
    local: bool = True
    state: str = "running"
    ended: float | None = None
    exit_status: int | None = None
    tail: LogTail | None = None

    def look(self) -> None:
        """Read the end of the log again if it has changed since the job was started."""
        if self.log is None:
            return
        try:
            at = self.log.stat().st_mtime
        except OSError:
            return
        if at >= self.started - 2 and (self.tail is None or at != self.tail.at):  # times of a shared disk may differ
            self.tail = read_tail(self.log)

    @property
    def waiting(self) -> bool:
        """Whether a job of a cluster has not written anything yet."""
        return not self.local and self.tail is None

    def seconds(self, now: float) -> float:
        """Return how long the job has run, or ran."""
        return max((self.ended or now) - self.started, 0.0)


@dataclass
class RunJobs:
    """All jobs of a run.

    Attributes:
        wanted: how many jobs of each rule the run has, as Snakemake counts them before it starts.
        jobs: the jobs that were started, by their number.
        done: numbers of the jobs that have ended well.
        most: the largest number of jobs that ran in parallel.
    """

    wanted: Counter[str] = field(default_factory=Counter)
    jobs: dict[int, Job] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    begin: float = field(default_factory=time.time)
    most: int = 1

    def want(self, stats: dict[str, int]) -> None:
        """Note how many jobs of each rule there will be."""
        self.wanted = Counter({rule: n for rule, n in stats.items() if rule not in (*TARGETS, "total")})

    def start(self, job: Job) -> None:
        """Add a job that starts, or starts again."""
        self.jobs[job.number] = job
        self.most = max(self.most, sum(not other.waiting for other in self.running()))

    def end(self, number: int, state: str, now: float) -> Job | None:
        """Note the end of a job and return it; None if it is no job for people, or has ended before."""
        job = self.jobs.get(number)
        if job is None or job.state != "running":
            return None
        job.look()
        job.state, job.ended = state, now
        if state == "done":
            self.done.add(number)
        return job

    def running(self) -> list[Job]:
        """Return the jobs that run or wait on a cluster, those that run first, then by their start."""
        return sorted(
            (job for job in self.jobs.values() if job.state == "running"), key=lambda j: (j.waiting, j.started)
        )

    def ended(self, state: str) -> list[Job]:
        """Return the jobs that ended in a state, in the order of their ends."""
        return sorted((job for job in self.jobs.values() if job.state == state), key=lambda job: job.ended or 0.0)

    @property
    def total(self) -> int:
        """How many jobs the run has."""
        return max(self.wanted.total(), len(self.jobs))

    def seconds_left(self, now: float) -> tuple[float, bool] | None:
        """Return (seconds that the rest of the run takes, whether all of its rules are known); None: nothing is known.

        A job that waits takes as long as those of its rule did on average, one that runs what its log says, or the
        rest of that average. The sum is divided by the number of jobs that ran in parallel at most.
        """
        times: dict[str, list[float]] = defaultdict(list)
        for job in self.ended("done"):
            times[job.rule].append(job.seconds(now))
        mean = {rule: sum(each) / len(each) for rule, each in times.items()}
        rest, longest, known, some = 0.0, 0.0, True, False
        to_come = Counter(self.wanted)
        for job in self.jobs.values():
            if job.state in ("done", "running"):
                to_come[job.rule] -= 1
        for job in self.running():
            left = job.tail.left(now) if job.tail else None
            if left is None and job.rule in mean:
                left = max(mean[job.rule] - (0.0 if job.waiting else job.seconds(now)), 0.0)
            known, some = known and left is not None, some or left is not None
            rest, longest = rest + (left or 0.0), max(longest, left or 0.0)
        for rule, count in to_come.items():
            if count > 0:
                known, some = known and rule in mean, some or rule in mean
                rest += count * mean.get(rule, 0.0)
        return (max(rest / self.most, longest), known) if some else None
