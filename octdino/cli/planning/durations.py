"""Seconds, peak memory and disk of each job, from trials and the sizes of the cohort."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from octdino.cli.planning.cohort_facts import CohortFacts
from octdino.cli.planning.trials import Trials
from octdino.cli.planning.workflow_jobs import WorkflowJob
from octdino.config import Arm, Config
from octdino.config.classify import Candidate
from octdino.config.cohort_size import DENSITY_SCANS, image_bytes, known_scans, memory_bytes, store_bytes

DISK_RATE = 300e6  # bytes per second of reading a store and writing a checkpoint
STARTUP = [4.0, 6.0, 8.0]  # seconds until a process with torch begins to work, where no trial measured it
# Seconds beside the start of a process, and bytes of memory, of rules without trials: as the default run had them on
# two cores (docs/plan.md).
UNTRIED_SECONDS = {"clinical": 1.0, "external": 4.0, "report": 3.0, "verdict": 0.0, "inference": 8.0}
UNTRIED_MEMORY = {
    "phantom": 0.6e9, "cohort": 0.5e9, "external_phantom": 0.6e9, "external_cohort": 0.5e9, "clinical": 0.3e9,
    "evaluate": 0.4e9, "external": 0.4e9, "audit": 0.7e9, "report": 0.3e9,
    "verdict": 0.2e9,
}  # fmt: skip
WITHOUT_TORCH = {
    "phantom", "cohort", "external_phantom", "external_cohort", "clinical", "evaluate", "external", "audit", "report",
    "verdict",
}  # fmt: skip
LIGHT_STARTUP = 0.3  # of the time until a process with torch begins to work
TORCH_MEMORY = 1.3e9  # of a process with torch that holds few scans
UNTRIED_DISK = {"evaluate": 2e6, "external": 1e6, "audit": 1e5, "report": 10e6, "clinical": 1e5}


class Cost(NamedTuple):
    """What a job costs.

    Attributes:
        seconds: on a machine without other work, as measured, and with the slow steps of its trial; None: not tried.
        memory, disk: bytes; disk is what stays.
    """

    seconds: list[float] | None
    memory: float
    disk: float


class CostModel:
    """Estimates of jobs.

    Args:
        trials: None: only sizes are estimated.
    """

    def __init__(self, settings: Config, facts: CohortFacts, trials: Trials | None, cores: int) -> None:
        self.settings, self.facts, self.trials, self.cores = settings, facts, trials, cores
        measured = sorted(trial["startup"] for trial in trials.all()) if trials else []
        self.startup = np.array(measured[len(measured) // 2] if measured else STARTUP)

    def cost(self, job: WorkflowJob) -> Cost:
        """Return the estimate of a job."""
        memory, disk = self._memory(job), self._disk(job)
        if self.trials is None:
            return Cost(None, memory, disk)
        by_rule = {"pretrain": self._pretrain, "classify": self._classify, "embed": self._embed, "score": self._score}
        beside = by_rule.get(job.rule, self._other)(job)
        startup = self.startup * (LIGHT_STARTUP if job.rule in WITHOUT_TORCH else 1.0)
        return Cost((startup + beside).tolist(), memory, disk)

    def _pretrain(self, job: WorkflowJob) -> np.ndarray:
        """Return the three values of `Cost.seconds`, as every function of a rule does."""
        trial, settings = self._trial(job), self.settings.pretrain
        evaluations = math.ceil(trial["epochs"] / settings.eval_every)
        evaluated = min(settings.online_eval_max_scans, self.facts.labeled_train + self.facts.labeled_val)
        seconds = np.array(trial["step_seconds"]) * trial["total_steps"]
        seconds = seconds + np.array(trial["evaluation_seconds"]) * evaluations * evaluated + self._reading(1.0)
        saved = seconds / max(settings.checkpoint_seconds, 1.0)  # checkpoints
        return np.asarray(seconds + saved * trial["state_bytes"] / DISK_RATE)

    def _classify(self, job: WorkflowJob) -> np.ndarray:
        trial, arm, settings = self._trial(job), Arm.parse(job.wildcards["arm"]), self.settings.classify
        train = max(1, math.ceil(self.facts.labeled_train * float(job.wildcards["fraction"])))
        if arm.mode == "finetune":
            return self._finetune(trial, arm, train)
        if arm.mode == "linear":
            return np.array(trial["linear_seconds"]) * train
        if arm.mode == "mlp":
            return np.array(trial["mlp_seconds"]) * sum(_steps(settings, c, train)[0] for c in settings.candidates())
        return np.ones(3)

    def _finetune(self, trial: dict[str, Any], arm: Arm, train: int) -> np.ndarray:
        settings, facts = self.settings.classify, self.facts
        schedules = [_steps(settings, candidate, train) for candidate in settings.candidates()]
        validations = sum(math.ceil(total / check) for total, check in schedules)
        scans = validations * facts.labeled_val + facts.labeled_val + facts.labeled_test
        seconds = np.array(trial["step_seconds"]) * sum(total for total, _ in schedules)
        if arm.init != "scratch" and settings.first_head == "linear":
            scans += train + facts.labeled_val
            seconds = seconds + np.array(trial["linear_seconds"]) * train
        seconds = seconds + np.array(trial["validation_seconds"]) * scans
        return np.asarray(seconds + self._reading(facts.labeled / max(facts.scans, 1)))

    def _embed(self, job: WorkflowJob) -> np.ndarray:
        return np.asarray(np.array(self._trial(job)["embed_seconds"]) * self.facts.scans + self._reading(1.0))

    def _score(self, job: WorkflowJob) -> np.ndarray:
        """External scans, and internal ones: the density of the training scans, and the check of the predictions."""
        facts = self.facts
        fitted = min(facts.scans, 3 * DENSITY_SCANS)  # of training, validation and test
        checked = sum(max(0, labeled - DENSITY_SCANS) for labeled in (facts.labeled_val, facts.labeled_test))
        scans = self._external_scans(job) + fitted + checked
        return np.asarray(np.array(self._trial(job)["embed_seconds"]) * scans + self._reading(1.0))

    def _external_scans(self, job: WorkflowJob) -> int:
        """Return the number of scans of a job's external cohort; that of the internal one where it is not known."""
        name, cohort = job.wildcards["external"], self.settings.cohort.results_name
        external = next(each for each in self.settings.evaluate.external if each.name == name)
        return known_scans(external.cohort, Path("results", cohort, "external", name)) or self.facts.scans

    def _other(self, job: WorkflowJob) -> np.ndarray:
        """Return the seconds of rules that only the files of the cohort, or nothing, was tried for."""
        trial = (self.trials.cohort if self.trials else None) or {"decode_seconds": [0.01] * 3}
        threads, scans, explain = min(job.threads, self.cores), self.facts.scans, self.settings.explain
        if job.rule.removeprefix("external_") in ("phantom", "cohort"):
            scans = self._external_scans(job) if "external" in job.wildcards else scans
            key = "write_seconds" if job.rule.endswith("phantom") else "decode_seconds"
            return np.asarray(np.array(trial.get(key, [0.01] * 3)) * scans / threads)
        tables = self.facts.labels * len(self.settings.classify.arms) * len(self.settings.classify.fractions)
        beside = {
            "evaluate": 5 + 0.05 * tables * self.settings.evaluate.resamples / 1000,
            "explain": min(explain.scans, scans) * 0.06 + min(explain.retrieval_gallery, scans) * 0.003,
            "audit": 1 + scans * 0.001,
        } | UNTRIED_SECONDS
        return beside.get(job.rule, 5.0) * np.array([0.7, 1.0, 1.5])

    def _trial(self, job: WorkflowJob) -> dict[str, Any]:
        assert self.trials is not None, "asked for by `cost` only with trials"
        backbone = job.wildcards["backbone"]
        if job.rule == "pretrain":
            return self.trials.pretrain[job.wildcards["method"], backbone]
        return self.trials.classify[backbone]

    def _reading(self, share: float) -> float:
        return share * store_bytes(self.settings.cohort, self.facts.scans) / DISK_RATE

    def _memory(self, job: WorkflowJob) -> float:
        """Return a trial's peak memory with the scans that the job holds, or an estimate without a trial."""
        scan, facts = image_bytes(self.settings.cohort.image), self.facts
        if self.trials is None and job.rule in ("pretrain", "classify", "embed", "cohort", "audit"):
            return memory_bytes(self.settings, facts.scans, job.rule)
        held = 0
        if job.rule == "pretrain":
            held = facts.scans if self.settings.pretrain.scope == "all" else facts.train
            held += min(self.settings.pretrain.online_eval_max_scans, facts.labeled)
        elif job.rule == "classify" and job.wildcards["arm"].endswith("-finetune"):
            held = facts.labeled
        elif job.rule == "audit":
            held = facts.scans
        if self.trials is not None and job.rule in ("pretrain", "classify", "embed", "score"):
            return float(self._trial(job)["memory"]) + held * scan
        return UNTRIED_MEMORY.get(job.rule, TORCH_MEMORY) + held * scan

    def _disk(self, job: WorkflowJob) -> float:
        """Return the bytes that a job's files have when it is finished."""
        cohort, scans = self.settings.cohort, self.facts.scans
        tried = self.trials is not None
        if job.rule == "pretrain":
            trial = self._trial(job) if tried else {"weights_bytes": 50e6, "state_bytes": 250e6}
            kept = self.settings.pretrain.keep_checkpoints
            return float(trial["weights_bytes"] + kept * trial["state_bytes"])
        if job.rule == "embed":
            return 4.0 * scans * (self._trial(job)["features"] if tried else 1000)
        if job.rule == "classify":
            tuned = job.wildcards["arm"].endswith("-finetune")
            weights = self._trial(job)["weights_bytes"] if tried else 50e6
            return float(weights if tuned else 1e5)
        trial = (self.trials.cohort if self.trials else None) or {}
        if "external" in job.wildcards:
            scans = self._external_scans(job)
        if job.rule == "score":
            return 100.0 * scans
        known = {
            "phantom": scans * trial.get("file_bytes", 200e3),
            "cohort": store_bytes(cohort, scans) + 300 * scans,
            "external_phantom": scans * trial.get("file_bytes", 200e3),
            "external_cohort": store_bytes(cohort, scans) + 300 * scans,
            "explain": 1e6 + min(self.settings.explain.scans, scans) * 1e4,
            "inference": 50e6,
        } | UNTRIED_DISK
        return float(known.get(job.rule, 0.0))


def _steps(settings: Any, candidate: Candidate, scans: int) -> tuple[int, int]:
    """Return the steps of one training, and those between two validations; as `octdino.classify.finetune` has them."""
    from octdino.classify.finetune import schedule_of  # torch

    schedule = schedule_of(settings, candidate, scans)
    return schedule.total, schedule.check
