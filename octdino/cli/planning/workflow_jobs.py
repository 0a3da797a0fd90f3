"""The jobs that the workflow would run, with settings and dependencies: a dry run of Snakemake in a process of its own.

So configuration files are laid over each other, checked and turned into jobs by the Snakefile and by nothing else. As a
program it reads the arguments as JSON from standard input and prints the jobs as JSON.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octdino.config import Config
from octdino.errors import EXIT_USER, UserError, one_line

SAID = "octdino: error: "  # begins the Snakefile's own messages
NOTED = "octdino: note: "


@dataclass(frozen=True)
class WorkflowJob:
    """A job that would run.

    Attributes:
        gpu: number of GPUs that it is counted with; 0 also where the machine has none.
        after: positions of the jobs that it waits for, among those that would run.
        priority: of two jobs that can run, the one with the higher priority is first.
    """

    rule: str
    wildcards: dict[str, str]
    threads: int
    gpu: int
    mem_mb: int
    after: list[int]
    priority: int


@dataclass(frozen=True)
class Workflow:
    """The settings, and the jobs that would run with them."""

    settings: Config
    jobs: list[WorkflowJob]
    notes: list[str]


def _has_a_run(folder: Path) -> bool:
    """Return whether a run of Snakemake has begun in this working directory meanwhile: it has locks or a record."""
    return any(path.is_file() for name in ("locks", "octdino") for path in (folder / name).glob("*"))


def read_workflow(
    configfiles: list[Path], config: dict[str, Any], *, snakefile: Path, cores: int, gpus: int
) -> Workflow:
    """Return the jobs that a run in the working directory would have.

    Args:
        configfiles, config: as Snakemake takes them.
        cores, gpus: of the run.

    Raises:
        UserError: a mistake in the configuration, in the words of the workflow.
    """
    asked = {
        "configfiles": [str(path.absolute()) for path in configfiles],
        "config": config,
        "snakefile": str(snakefile),
        "cores": cores,
        "gpus": gpus,
    }
    fresh = not Path(".snakemake").exists()  # else another run may be alive in it
    try:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name], input=json.dumps(asked), capture_output=True, text=True, check=False
        )
    finally:
        if fresh and not _has_a_run(Path(".snakemake")):  # a plan leaves nothing behind
            shutil.rmtree(".snakemake", ignore_errors=True)
    lines = done.stderr.splitlines()
    if done.returncode:
        said = next((line.removeprefix(SAID) for line in lines if line.startswith(SAID)), None)
        if said is None:
            raise RuntimeError(f"the dry run failed:\n{done.stderr[-4000:]}")
        raise UserError(said)
    found = json.loads(done.stdout.splitlines()[-1])
    return Workflow(
        Config.model_validate(found["settings"]),
        [WorkflowJob(**job) for job in found["jobs"]],
        [line.removeprefix(NOTED) for line in lines if line.startswith(NOTED)],
    )


def dry_run(asked: dict[str, Any]) -> dict[str, Any]:
    """Return settings and jobs as plain values; Snakemake stays in this process."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        OutputSettings,
        Quietness,
        RerunTrigger,
        ResourceSettings,
    )

    triggers = {RerunTrigger.MTIME, RerunTrigger.PARAMS, RerunTrigger.INPUT, RerunTrigger.CODE}  # of profiles/default
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        opened = api.workflow(
            ResourceSettings(cores=asked["cores"], resources={"gpu": asked["gpus"]}),
            config_settings=ConfigSettings(
                configfiles=[Path(name) for name in asked["configfiles"]], config=asked["config"]
            ),
            snakefile=Path(asked["snakefile"]),
            workdir=Path.cwd(),
        )
        opened.dag(DAGSettings(rerun_triggers=triggers)).execute_workflow(executor="dryrun")
        workflow = opened._workflow_store
        jobs = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.rule.name != "all"]
        places = {id(job): place for place, job in enumerate(jobs)}
        found = [_plain(job, workflow.dag.dependencies[job], places) for job in jobs]
        return {"settings": workflow.globals["settings"].model_dump(mode="json"), "jobs": found}


def _plain(job: Any, dependencies: Any, places: dict[int, int]) -> dict[str, Any]:
    resources = dict(job.resources.items())
    return asdict(
        WorkflowJob(
            rule=job.rule.name,
            wildcards={name: str(value) for name, value in job.wildcards_dict.items()},
            threads=job.threads,
            gpu=int(resources.get("gpu", 0)),
            mem_mb=int(resources.get("mem_mb", 0)),
            after=sorted(places[id(each)] for each in dependencies if id(each) in places),
            priority=int(job.priority),
        )
    )


def main() -> int:
    """Print the jobs of the arguments on standard input; a mistake is one line and exit code 2."""
    from snakemake.exceptions import WorkflowError

    stdout = os.dup(1)
    os.dup2(2, 1)  # nothing of Snakemake's own gets between
    try:
        found = dry_run(json.load(sys.stdin))
    except WorkflowError as error:
        print(f"{SAID}{one_line(error)}", file=sys.stderr)
        return EXIT_USER
    with os.fdopen(stdout, "w") as out:
        out.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
