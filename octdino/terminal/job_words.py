"""Jobs of the workflow in words: "pretrain dino, resnet18_narrow, fold 0, seed 0"."""

import re
from collections.abc import Mapping

ABOUT = {  # rules without a run in their name, with what they do
    "phantom": "phantom: draw the synthetic cohort",
    "cohort": "cohort: read and check scans, split patients",
    "evaluate": "evaluate: compare the arms on test patients",
    "external": "external: compare external with internal performance",
    "audit": "audit: search for leakage of test patients",
    "inference": "inference: write the model folder",
    "report": "report: write the page",
    "verdict": "verdict: check the findings of the audit",
}
EXTERNAL = {"external_phantom": "draw a synthetic cohort", "external_cohort": "read and check scans"}
RUN = r"fold(?P<fold>\d+|all)-seed(?P<seed>\d+)"
# Log files below logs/{cohort}/, as workflow/rules/*.smk name them.
LOGS = (
    r"cohort/(?P<rule>phantom|cohort)",
    rf"(?P<rule>pretrain)/(?P<method>[^.]+)\.(?P<backbone>.+)\.{RUN}",
    rf"(?P<rule>embed|explain)/(?P<init>[^.]+)\.(?P<backbone>.+)\.{RUN}",
    rf"classify/(?P<rule>clinical)\.none\.f(?P<fraction>[\d.]+)\.{RUN}",
    rf"(?P<rule>classify)/(?P<arm>[^.]+)\.(?P<backbone>.+)\.f(?P<fraction>[\d.]+)\.{RUN}",
    r"evaluate/(?P<rule>evaluate|external)",
    r"external/(?P<external>[^/]+)/(?P<rule>external_cohort|external_phantom)",
    rf"external/(?P<external>[^/]+)/(?P<rule>score)\.(?P<arm>[^.]+)\.(?P<backbone>.+)\.f(?P<fraction>[\d.]+)\.{RUN}",
    r"audit/(?P<rule>audit|verdict)",
    r"(?P<rule>inference)/model",
    r"(?P<rule>report)/report",
)


def job_words(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return what a job does: its rule, then its wildcards without the cohort.

    Args:
        rule: the name of the rule; of a rule that is not of this workflow all wildcards are shown by name.
        wildcards: the values that identify the job within its rule.
    """
    values = {name: str(value) for name, value in wildcards.items() if name != "cohort"}
    if rule in ABOUT and not values:
        return ABOUT[rule]
    if rule in EXTERNAL and values.keys() == {"external"}:
        return f"{rule.replace('_', ' ')} {values['external']}: {EXTERNAL[rule]}"
    main = next((values.pop(name) for name in ("method", "arm", "init") if name in values), "")
    parts = [f"{rule} {main}".rstrip() if rule != "clinical" else "clinical baseline"]
    if "backbone" in values:
        parts.append(values.pop("backbone"))
    if "fraction" in values:
        parts.append(f"{percent(values.pop('fraction'))} of labels")
    if "fold" in values:
        fold = values.pop("fold")
        parts.append("all folds" if fold == "all" else f"fold {fold}")
    if "seed" in values:
        parts.append(f"seed {values.pop('seed')}")
    parts += [f"{name} {value}" for name, value in values.items()]
    return ", ".join(parts)


def job_of_log(relative: str) -> tuple[str, dict[str, str]] | None:
    """Return (rule, wildcards) of a log file, by its path below logs/{cohort}/; None if no rule has such a log."""
    for pattern in LOGS:
        if match := re.fullmatch(pattern + r"\.log", relative):
            values = match.groupdict()
            return values.pop("rule"), values
    return None


def percent(fraction: str) -> str:
    """Return a fraction as it is in paths ("0.05") in percent: "5 %"."""
    try:
        return f"{100 * float(fraction):g} %"
    except ValueError:
        return fraction
