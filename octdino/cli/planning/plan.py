"""A plan from the workflow's jobs, the cohort's sizes and trials."""

from pathlib import Path
from typing import Any

from octdino.cli.planning.cohort_facts import cohort_facts
from octdino.cli.planning.durations import CostModel
from octdino.cli.planning.plan_text import Plan
from octdino.cli.planning.trials import run_trials
from octdino.cli.planning.workflow_jobs import read_workflow
from octdino.workflow_files import workflow_folder


def make_plan(
    configfiles: list[Path],
    config: dict[str, Any],
    *,
    snakefile: Path | None = None,
    cores: int,
    gpus: int = 1,
    trial: bool = True,
) -> Plan:
    """Return the plan of a run in the working directory.

    Args:
        configfiles, config: as Snakemake takes them.
        trial: whether to try steps; without, only sizes are estimated.

    Raises:
        UserError: a mistake in the configuration or in the cohort's files.
    """
    snakefile = snakefile or workflow_folder() / "Snakefile"
    workflow = read_workflow(configfiles, config, snakefile=snakefile, cores=cores, gpus=gpus)
    facts = cohort_facts(workflow.settings, Path("results"))
    trials = run_trials(workflow, facts, cores) if trial else None
    model = CostModel(workflow.settings, facts, trials, cores)
    return Plan(workflow, facts, [model.cost(job) for job in workflow.jobs], trials, cores, gpus)
