"""The text of a plan: cohort, machine, one row per rule, and how the numbers were found."""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from octdino import STAGES
from octdino.cli.planning.cohort_facts import CohortFacts
from octdino.cli.planning.durations import Cost
from octdino.cli.planning.job_schedule import least_makespan, makespan
from octdino.cli.planning.trials import STEPS, Trials
from octdino.cli.planning.workflow_jobs import Workflow, WorkflowJob
from octdino.config import Config
from octdino.config.cohort_size import machine_memory
from octdino.data.disk_space import amount

STAGE_OF = {  # of rules with another name
    "phantom": "cohort", "clinical": "classify", "verdict": "audit", "external_phantom": "cohort",
    "external_cohort": "cohort", "score": "inference", "external": "evaluate",
}  # fmt: skip
UNTRIED = ("clinical", "evaluate", "external", "audit", "verdict", "explain", "inference", "report")
BUSY = 1.5  # load per core, the trials' own included, from which a free machine is faster


@dataclass(frozen=True)
class Plan:
    """What is known of a run before it starts.

    Attributes:
        costs: of the jobs, in their order.
        trials: None with --no-trial.
    """

    workflow: Workflow
    facts: CohortFacts
    costs: list[Cost]
    trials: Trials | None
    cores: int
    gpus: int

    def times(self) -> tuple[float, float, float] | None:
        """Return the least, the expected and the longest seconds of the run; None without trials."""
        if self.trials is None:
            return None
        jobs = self.workflow.jobs
        free, typical, slow = (
            [cost.seconds[which] if cost.seconds else 0.0 for cost in self.costs] for which in range(3)
        )
        least = least_makespan(jobs, free, self.cores) if jobs else 0.0
        return least, makespan(jobs, typical, self.cores, self.gpus), makespan(jobs, slow, self.cores, self.gpus)


def plan_text(plan: Plan) -> str:
    """Return the plan as lines of text."""
    lines = [_cohort(plan.workflow.settings, plan.facts), _machine(plan), ""]
    lines += _table(plan)
    lines += ["", *_total(plan), "", *_how(plan)]
    lines += [f"Note: {note}" for note in [*plan.workflow.notes, *_warnings(plan)]]
    return "\n".join(lines) + "\n"


def about(seconds: float) -> str:
    """Return a time as it can be said before: about 25 min, about 3 h, about 2 days; never more than it is known."""
    if seconds < 45:
        return "less than 1 min"
    minutes = seconds / 60
    if minutes < 57.5:
        step = 1 if minutes < 10 else 5
        return f"about {max(1, round(minutes / step) * step)} min"
    hours = minutes / 60
    if hours < 9.75:
        return f"about {round(hours * 2) / 2:g} h"
    if hours < 47:
        return f"about {round(hours)} h"
    return f"about {round(hours / 24)} days"


def _cohort(settings: Config, facts: CohortFacts) -> str:
    height, width = settings.cohort.image.size
    patients = f" of {facts.patients:,} patients" if facts.patients else ""
    return (
        f"Cohort   {settings.cohort.results_name}: {facts.scans:,} scans{patients}, {facts.labeled:,} with labels, by "
        f"{facts.known_from}; stored at {height} x {width} px"
    )


def _machine(plan: Plan) -> str:
    trained = [*plan.trials.pretrain.values(), *plan.trials.classify.values()] if plan.trials else []
    on = f"; tried on {' and '.join(sorted({trial['device'] for trial in trained}))}" if trained else ""
    return (
        f"Machine  {plan.cores} cores, {amount(machine_memory())} of memory, {amount(_free(Path.cwd()))} of disk "
        f"free{on}"
    )


def _table(plan: Plan) -> list[str]:
    rows = [("stage", "rule", "jobs", "memory per job", "disk", "time of all its jobs, one after the other")]
    for rule, places in _by_rule(plan.workflow.jobs).items():
        costs = [plan.costs[place] for place in places]
        seconds = [cost.seconds[1] for cost in costs if cost.seconds is not None]
        rough = " (rough)" if seconds and rule in UNTRIED else ""
        time = about(sum(seconds)) + rough if seconds else "-"
        memory, disk = max(cost.memory for cost in costs), sum(cost.disk for cost in costs)
        stage = STAGE_OF.get(rule, rule)
        rows.append((stage, rule, str(len(places)), _size(memory), _size(disk), time))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    sides = "<<>>><"
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def _by_rule(jobs: list[WorkflowJob]) -> dict[str, list[int]]:
    """Return the positions of the jobs of each rule, in the order of the stages."""
    found: dict[str, list[int]] = {}
    for place, job in enumerate(jobs):
        found.setdefault(job.rule, []).append(place)
    return dict(sorted(found.items(), key=lambda item: (_place(STAGE_OF.get(item[0], item[0])), item[0])))


def _place(stage: str) -> int:
    """Return the position of a stage; rules of another workflow are last."""
    return [*STAGES].index(stage) if stage in STAGES else len(STAGES)


def _total(plan: Plan) -> list[str]:
    jobs, disk = len(plan.workflow.jobs), sum(cost.disk for cost in plan.costs)
    if not jobs:
        return ["Nothing to do: all results are made."]
    lines = [f"Total    {jobs} jobs, {_size(disk)} on disk, up to {_size(max(c.memory for c in plan.costs))} per job"]
    if times := plan.times():
        least, expected, longest = times
        lines.append(
            f"Time     {about(expected)} on {plan.cores} cores{_gpu(plan)}: {_bare(least)} at least, on a machine "
            f"without other work; {_bare(longest)} where all steps are as slow as the slow ones of the trial"
        )
    return lines


def _how(plan: Plan) -> list[str]:
    if plan.trials is None:
        return ["Sizes only (--no-trial): memory and disk are estimated from the number and size of scans."]
    return [
        f"Found by: jobs from a dry run; up to {STEPS} real training steps per method and backbone, and fine-tuning",
        "steps and embeddings per backbone, on random scans of the real size (first steps left out), times the steps",
        "of each job; the jobs placed on the cores as their order allows. Rough rows are not tried. Downloads, and",
        "other work of the machine, are not in it.",
    ]


def _warnings(plan: Plan) -> list[str]:
    found = []
    load = os.getloadavg()[0] / plan.cores if hasattr(os, "getloadavg") else 0.0
    if plan.trials is not None and load > BUSY:
        found.append(f"the machine is busy ({load:.1f} processes per core): on a free one it is faster")
    if (need := sum(cost.disk for cost in plan.costs)) > (free := _free(Path.cwd())):
        found.append(f"{amount(round(need))} of disk needed, {amount(free)} free")
    if plan.costs and (most := max(cost.memory for cost in plan.costs)) > machine_memory():
        found.append(f"a job needs {amount(round(most))} of memory, this machine has {amount(machine_memory())}")
    return found


def _gpu(plan: Plan) -> str:
    return f" and {plan.gpus} GPU" if any(job.gpu for job in plan.workflow.jobs) else ""


def _bare(seconds: float) -> str:
    return about(seconds).removeprefix("about ")


def _size(count: float) -> str:
    """Return bytes with two digits, which is what is known: 0.3 GB, 21 GB, 40 MB."""
    if count < 1e5:
        return "-"
    for unit, power in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.95 * power or unit == "MB":
            value = count / power
            digits = max(0, 1 - math.floor(math.log10(value)))
            return f"{round(value, digits):g} {unit}" if value < 100 else f"{round(value, -1):g} {unit}"
    return ""


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
