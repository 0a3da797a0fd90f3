"""Which trials a plan needs, and their results: each in a process of its own, as many at a time as jobs would run."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from octdino.cli.planning.cohort_facts import CohortFacts
from octdino.cli.planning.workflow_jobs import Workflow, WorkflowJob
from octdino.config import Arm, Config
from octdino.config.models import published_input
from octdino.errors import UserError

STEPS = 20  # of a trial, after the first ones
SECONDS = 30.0  # after which a trial takes no further step
DECODED = 24  # scans of a trial of the cohort stage
PROCESS = "octdino.cli.planning.trial_process"

log = logging.getLogger("octdino.plan")


@dataclass(frozen=True)
class Trials:
    """Results of the trials, by what they were of.

    Attributes:
        pretrain: by method and backbone.
        classify: by backbone: fine-tuning, embeddings, probes.
        cohort: of reading the files; None: not tried.
    """

    pretrain: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    classify: dict[str, dict[str, Any]] = field(default_factory=dict)
    cohort: dict[str, Any] | None = None

    def all(self) -> list[dict[str, Any]]:
        """Return the results of all trials."""
        return [*self.pretrain.values(), *self.classify.values(), *([self.cohort] if self.cohort else [])]


def run_trials(workflow: Workflow, facts: CohortFacts, cores: int) -> Trials:
    """Try each kind of job that would run.

    Raises:
        UserError: a job would refuse its settings; its message.
    """
    asked: dict[tuple[str, ...], tuple[dict[str, Any], int]] = {}
    for job in workflow.jobs:
        for key, trial in _trials_of(job, workflow.settings, facts):
            asked.setdefault(key, (trial, job.threads))
    gpu = any(job.gpu for job in workflow.jobs)
    threads = max((threads for key, (_, threads) in asked.items() if key[0] != "cohort"), default=1)
    at_a_time = 1 if gpu else max(1, min(len(asked), cores // max(1, threads)))
    with ThreadPoolExecutor(at_a_time) as pool:
        results = list(pool.map(lambda key: _run(key, *asked[key]), asked))
    found = dict(zip(asked, results, strict=True))
    return Trials(
        {(key[1], key[2]): result for key, result in found.items() if key[0] == "pretrain"},
        {key[1]: result for key, result in found.items() if key[0] == "classify"},
        found.get(("cohort",)),
    )


def _trials_of(
    job: WorkflowJob, settings: Config, facts: CohortFacts
) -> Iterable[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the trials that a job's time follows from, with their keys."""
    common = {"steps": STEPS, "seconds": SECONDS, "image": settings.cohort.image.model_dump(mode="json")}
    if job.rule == "cohort" and (settings.cohort.local or settings.cohort.name == "phantom"):
        values = settings.cohort.plain(name=False)
        yield ("cohort",), {"kind": "cohort", "settings": values, "scans": DECODED}  # one file after the other
    if job.rule == "pretrain":
        method, backbone = job.wildcards["method"], job.wildcards["backbone"]
        scans = facts.scans if settings.pretrain.scope == "all" else facts.train
        yield (
            ("pretrain", method, backbone),
            {
                **common,
                "kind": "pretrain",
                "method": method,
                "backbone": backbone,
                "model": settings.model(backbone).model_dump(mode="json"),
                "settings": settings.pretrain.needed(method),
                "scans": max(scans, 2),
            },
        )
    if job.rule in ("classify", "embed", "score"):
        backbone = job.wildcards["backbone"]
        size = published_input(settings.model(backbone)).size if settings.published(backbone) else None
        chosen = settings.classify.at_input_size(size or settings.classify.augment.global_size)
        yield (
            ("classify", backbone),
            {
                **common,
                "kind": "classify",
                "model": settings.model(backbone).model_dump(mode="json", exclude={"weights"}),
                "settings": chosen.model_dump(mode="json"),
                "readout": settings.embed.readout,
                "size": size or settings.embed.size or settings.classify.augment.global_size,
                "labels": facts.labels,
                "labeled": max(facts.labeled_train, 2),
                "modes": sorted({Arm.parse(arm).mode for arm in settings.classify.arms}),
            },
        )


def _run(key: tuple[str, ...], trial: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run a trial in a process of its own and return what it measured."""
    log.info("trial: %s", " ".join(key))
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", PROCESS], input=json.dumps({**trial, "started": time.time()}), env=env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        if last.startswith("octdino.errors.UserError: "):
            raise UserError(last.removeprefix("octdino.errors.UserError: "))
        raise UserError(f"the trial of {' '.join(key)} failed: {last}; --no-trial plans without it")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
