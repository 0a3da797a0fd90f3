"""The last lines of a run of Snakemake, which name what it has made: the page, the model, the audit's verdict."""

from pathlib import Path
from typing import Any

from snakemake.logging import logger

NAMES = {"report": "The page", "inference": "The model", "verdict": "The audit"}  # by the rule that makes them


def announce_results(dag: Any) -> None:
    """Log where the results are.

    Args:
        dag: Snakemake's graph of jobs, after the run.
    """
    for line in result_lines(dag):
        logger.info(line)


def result_lines(dag: Any) -> list[str]:
    """Return one line per result that was written in this run or is up to date; none of what is stale or missing."""
    texts: dict[str, str] = {}
    for job in getattr(dag, "jobs", ()):
        rule, path = job.rule.name, Path(str(next(iter(job.output), "")))
        if rule not in NAMES or (dag.needrun(job) and not dag.finished(job)) or not path.is_file():
            continue
        if rule == "verdict":
            texts[rule] = path.read_text(encoding="utf-8").strip()
        else:
            texts[rule] = str((path.parent if rule == "inference" else path).resolve())
    return [f"{name}: {texts[rule]}" for rule, name in NAMES.items() if texts.get(rule)]
