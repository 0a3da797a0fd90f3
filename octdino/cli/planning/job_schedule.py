"""When a workflow's jobs are done: greedy list scheduling of jobs with dependencies over cores and GPUs."""

import heapq
from collections.abc import Sequence

from octdino.cli.planning.workflow_jobs import WorkflowJob


def makespan(jobs: Sequence[WorkflowJob], seconds: Sequence[float], cores: int, gpus: int) -> float:
    """Return the seconds from the first job's start to the last one's end.

    As in Snakemake, a job that can run is started at once; the one with the highest priority first.

    Args:
        seconds: of each job.
        cores, gpus: that jobs share; a job that asks for more gets all of them.
    """
    waiting = {place: set(job.after) for place, job in enumerate(jobs)}
    running: list[tuple[float, int]] = []
    free_cores, free_gpus, now = cores, gpus, 0.0
    while waiting or running:
        ready = sorted((place for place, after in waiting.items() if not after), key=lambda p: (-jobs[p].priority, p))
        for place in ready:
            threads, gpu = _needs(jobs[place], cores, gpus)
            if threads <= free_cores and gpu <= free_gpus:
                free_cores, free_gpus = free_cores - threads, free_gpus - gpu
                heapq.heappush(running, (now + seconds[place], place))
                del waiting[place]
        if not running:
            raise ValueError("jobs wait for each other")
        now, done = heapq.heappop(running)
        threads, gpu = _needs(jobs[done], cores, gpus)
        free_cores, free_gpus = free_cores + threads, free_gpus + gpu
        for after in waiting.values():
            after.discard(done)
    return now


def least_makespan(jobs: Sequence[WorkflowJob], seconds: Sequence[float], cores: int) -> float:
    """Return a time that no schedule is below: the longest chain of jobs, or all work shared by all cores."""
    ends: dict[int, float] = {}

    def end(place: int) -> float:
        if place not in ends:
            ends[place] = seconds[place] + max((end(each) for each in jobs[place].after), default=0.0)
        return ends[place]

    work = sum(min(job.threads, cores) * each for job, each in zip(jobs, seconds, strict=True))
    return max([work / cores, *map(end, range(len(jobs)))])


def _needs(job: WorkflowJob, cores: int, gpus: int) -> tuple[int, int]:
    return min(job.threads, cores), min(job.gpu, gpus)
