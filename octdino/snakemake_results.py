"""What a run of Snakemake has made, said at its end: the page, the model, the audit; imported by the Snakefile only."""

import functools
from pathlib import Path
from typing import Any

from snakemake.logging import logger

NAMES = {"report": "The page", "inference": "The model", "verdict": "The audit"}  # by the rule that makes them


def announce_results(workflow: Any) -> None:
    """Print where the results are when `workflow` ends, also after "Nothing to be done", which calls no `onsuccess`."""
    if not workflow.is_main_process:  # inside of a cluster's job
        return
    execute = workflow.execute

    @functools.wraps(execute)
    def run(**arguments: Any) -> Any:
        kind = arguments["executor_plugin"].common_settings
        try:
            done = execute(**arguments)
        except Exception:
            if not (kind.dryrun_exec or kind.touch_exec):
                _announce(workflow)
            raise
        if not (kind.dryrun_exec or kind.touch_exec):
            _announce(workflow)
        return done

    workflow.execute = run


def result_lines(dag: Any) -> list[str]:
    """Return one line per result that was written in this run or is up to date; none of what is stale or missing.

    Args:
        dag: Snakemake's graph of jobs, after the run.
    """
    lines = []
    for job in getattr(dag, "jobs", ()):
        name = NAMES.get(job.rule.name)
        if name is None or (dag.needrun(job) and not dag.finished(job)):
            continue
        path = Path(str(job.output[0]))
        if not path.is_file():
            continue
        if job.rule.name == "verdict":
            if text := path.read_text(encoding="utf-8").strip():
                lines.append(f"{name}: {text}")
        else:
            lines.append(f"{name}: {(path.parent if job.rule.name == 'inference' else path).resolve()}")
    return sorted(lines, key=lambda line: list(NAMES.values()).index(line.split(":")[0]))


def _announce(workflow: Any) -> None:
    for line in result_lines(workflow.dag):
        logger.info(line)
