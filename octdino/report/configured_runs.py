"""Which runs below results/{cohort} the configuration asks for; those of an earlier one stay beside them.

The rules are those of workflow/paths.smk. A key that a configuration lacks, because it was given by hand and in part,
leaves nothing out; an empty list asks for nothing.
"""

import re
from collections.abc import Container
from dataclasses import replace
from typing import Any

import numpy as np

from octdino.config import FRACTION_TEXT, METHODS, Arm, SplitSettings
from octdino.config.implied import published_names
from octdino.config.names import MODES
from octdino.errors import UserError, short
from octdino.report.results_reader import Results

RUN = re.compile(r"fold(all|\d+)-seed(\d+)")
JOB = re.compile(
    rf"(\w+)\.([^.]+)\.(.+?)(?:\.f({FRACTION_TEXT}))?\.(fold\w+-seed\d+)"
)  # rule, name, backbone, fraction, run
EVALUATING = ("evaluate", "inference")  # rules that need arms


class Everything:
    """Stands for a list that is not known: it contains every value."""

    def __contains__(self, _: object) -> bool:
        return True


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of the configuration; empty if it is missing.

    Raises:
        UserError: it is no mapping.
    """
    found = config.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"--config: {name}: expected a mapping of settings, found {type(found).__name__}")
    return found


def has_arms(config: dict[str, Any]) -> bool:
    """Return whether there is something to evaluate: false for `classify.arms: []`."""
    return section(config, "classify").get("arms") != []


def with_configured_runs(found: Results, config: dict[str, Any]) -> Results:
    """Return the results without pretraining, explained networks and benchmarks that the configuration has not."""
    asked = ConfiguredRuns(config)
    jobs = np.array([asked.has_job(job) for job in found.benchmarks["job"]], dtype=bool)
    return replace(
        found,
        pretraining=[run for run in found.pretraining if asked.has_pretraining(run.method, run.backbone, run.run)],
        explained=[folder for folder in found.explained if asked.has_explained(*folder.parts[-3:])],
        benchmarks=found.benchmarks[jobs].reset_index(drop=True),
    )


class ConfiguredRuns:
    """The runs of a configuration, by the parts of their folders' names."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the keys that decide; `config` has the settings of all stages, or some of them."""
        self._pretrain, self._classify = section(config, "pretrain"), section(config, "classify")
        self._explain = section(config, "explain")
        methods = {*METHODS, *section(self._pretrain, "variants")}
        self._published = [name for name in published_names(section(config, "models")) if name not in methods]
        self._has_arms = has_arms(config)
        split = section(section(config, "cohort"), "split")
        self._folds: Container[str] = Everything()
        if "protocol" in split:
            self._folds = {str(fold) for fold in range(SplitSettings.parse(split, "cohort.split").count)}

    def has_pretraining(self, method: str, backbone: str, run: str) -> bool:
        """Return whether a method is pretrained on a backbone in this run, foldN-seedN or foldall-seedN."""
        scope = self._pretrain.get("scope")
        folds = Everything() if scope is None else ("all",) if scope == "all" else self._folds
        return method in _values(self._pretrain, "methods") and self._has(
            method, backbone, run, folds, _values(self._pretrain, "seeds")
        )

    def has_explained(self, init: str, backbone: str, run: str) -> bool:
        """Return whether a network is explained, which is always one of fold 0."""
        seeds = _values(self._explain, "seeds")
        return init in self._explained_inits() and self._has(init, backbone, run, ("0",), seeds)

    def _explained_inits(self) -> Container[str]:
        """Return what explain.inits names; null: random weights, every method, and published weights of arms."""
        if "inits" in self._explain and self._explain["inits"] is None:
            methods = _values(self._pretrain, "methods")
            return ("scratch", *methods, *self._published) if isinstance(methods, list) else methods
        return _values(self._explain, "inits")

    def has_classifier(self, arm: str, backbone: str, fraction: str, run: str) -> bool:
        """Return whether an arm is trained at a fraction, as written in its folder's name."""
        own = section(self._classify, "arm_fractions")
        fractions = _values(own, arm) if arm in own else _values(self._classify, "fractions")
        return (
            arm in _values(self._classify, "arms")
            and float(fraction) in fractions
            and self._has(Arm.named(arm).init, backbone, run, self._folds, _values(self._classify, "seeds"))
        )

    def has_job(self, job: str) -> bool:
        """Return whether a benchmark, named as in Snakemake's rules, is of a job that the configuration has."""
        if job in EVALUATING:
            return self._has_arms
        if not (match := JOB.fullmatch(job)):
            return True
        rule, name, backbone, fraction, run = match.groups()
        if rule == "pretrain":
            return self.has_pretraining(name, backbone, run)
        if rule == "explain":
            return self.has_explained(name, backbone, run)
        if rule == "classify" and fraction:
            return self.has_classifier(name, backbone, fraction, run)
        if rule == "clinical":  # clinical.none.f…: it has no backbone
            seeds = _values(self._classify, "seeds")
            return self._has_arms and self._has(name, "none", run, self._folds, seeds)
        return rule != "embed" or self._has_embeddings(name, backbone, run)

    def _has_embeddings(self, init: str, backbone: str, run: str) -> bool:
        """Return whether an arm on frozen features or an explained network starts from this init.

        Its seed may be that of any stage: classifiers without a pretraining of their seed start from another.
        """
        arms = _values(self._classify, "arms")
        read = init in self._explained_inits() or any(f"{init}-{mode}" in arms for mode in MODES if mode != "finetune")
        stages = (self._pretrain, self._classify, self._explain)
        return read and any(self._has(init, backbone, run, self._folds, _values(stage, "seeds")) for stage in stages)

    def _has(self, init: str, backbone: str, run: str, folds: Container[str], seeds: Container[int]) -> bool:
        """Return whether backbone, fold and seed are asked for; a run of another form of name is not judged.

        Published weights are used on the network of their own name alone.
        """
        chosen = section(section(self._pretrain, "variants"), init).get("backbones")
        backbones = [init] if init in self._published else chosen or _values(self._pretrain, "backbones")
        if backbone not in backbones and backbone != "none":
            return False
        match = RUN.fullmatch(run)
        return match is None or (match[1] in folds and int(match[2]) in seeds)


def _values(settings: dict[str, Any], key: str) -> Container[Any]:
    """Return the list under a key; one that contains everything where it is missing or null.

    Raises:
        UserError: it is no list.
    """
    values = settings.get(key)
    if values is None:
        return Everything()
    if not isinstance(values, list):
        raise UserError(f"--config: {key}: expected a list, found {short(values)}")
    return values
