"""What a dry run shows: one row per rule with the number of its jobs and why they would run, in words."""

import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from octdino.progress import duration
from octdino.terminal.run_jobs import TARGETS
from octdino.terminal.screen import columns

# The phrases of Snakemake's reasons, and the words for them.
REASONS = {
    "Forced execution": "forced",
    "Missing output files: ": "its results are missing",
    "Incomplete output files: ": "its results are incomplete",
    "Updated input files: ": "its input is newer",
    "Set of input files has changed": "it has other inputs than before",
    "Code has changed": "its command has changed",
    "Software environment definition": "the software environment has changed",
    "always executed": "it always runs",
}
PARAMS = "Params have changed since last execution: "
FOLLOWS = "Input files updated by another job: "
LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])""")
MOST_KEYS = 3  # of changed settings that are named
QUEUES = ("slurm_partition", "lsf_queue")  # resources of the profiles of clusters
AFTER = "it follows a job that runs again"


@dataclass(frozen=True)
class Request:
    """What the jobs of a rule request from a cluster on their first attempt; of several jobs the most."""

    queue: str
    cores: int
    gpus: int
    memory: int  # MB
    minutes: int

    @classmethod
    def of(cls, threads: int, resources: Mapping[str, Any]) -> "Request | None":
        """Return the request of a job, from its resources; None where they name no partition or queue."""
        queue = next((resources[name] for name in QUEUES if resources.get(name)), None)
        if queue is None:
            return None
        needs = [resources.get(name) for name in ("gpu", "mem_mb", "runtime")]
        return cls(str(queue), threads, *(need if isinstance(need, int) else 0 for need in needs))  # 0: not known yet

    def largest(self, other: "Request") -> "Request":
        """Return the larger of each."""
        pairs = zip(astuple(self)[1:], astuple(other)[1:], strict=True)
        return Request(self.queue, *(max(pair) for pair in pairs))

    def __str__(self) -> str:
        parts = [f"{self.cores} core{'s' * (self.cores != 1)}"]
        parts += [f"{self.gpus} GPU{'s' * (self.gpus != 1)}"] if self.gpus else []
        parts += [f"{round(self.memory / 1000, 1):,g} GB"] if self.memory else []
        parts += [duration(60 * self.minutes)] if self.minutes else []
        return f"{self.queue}: {', '.join(parts)}"


class DryRun:
    """Collects the jobs of a dry run."""

    def __init__(self) -> None:
        self.jobs: dict[str, Counter[str]] = defaultdict(Counter)
        self.requests: dict[str, Request] = {}

    def add(self, rule: str, reason: str, request: Request | None = None) -> None:
        """Add a job with the reason that Snakemake gives, and the resources that it requests from a cluster."""
        if rule not in TARGETS:
            self.jobs[rule][reason_words(reason)] += 1
            if request is not None:
                self.requests[rule] = request.largest(self.requests.get(rule, request))

    def lines(self, width: int | None = None) -> list[str]:
        """Return the table, or nothing if there is no job."""
        if not self.jobs:
            return []
        asked = "requested per job" if self.requests else ""
        rows = [["rule", "jobs", asked, "why"]]
        for rule, reasons in self.jobs.items():
            many = len(reasons) > 1
            why = "; ".join(f"{n}: {words}" if many else words for words, n in reasons.most_common())
            request = self.requests.get(rule)
            rows.append([rule, str(reasons.total()), "" if request is None else str(request), why])
        rows.append(["total", str(sum(reasons.total() for reasons in self.jobs.values())), "", ""])
        note = "A dry run: nothing was done. All messages of Snakemake: --verbose"
        return [*columns(rows, right=(1,), width=width), note]


def reason_words(reason: str) -> str:
    """Return Snakemake's reason for a job in words; of several the cause, not that inputs will be new."""
    found = [words for phrase, words in REASONS.items() if phrase in reason]
    if PARAMS in reason:
        found.append(changed_settings(reason.split(PARAMS, 1)[1]))
    if not found and FOLLOWS in reason:
        found.append(AFTER)
    return ", ".join(found) or reason.split(":")[0] or "no reason is known"


def changed_settings(text: str) -> str:
    """Return which settings differ: "settings changed: epochs 24 → 30".

    Args:
        text: what Snakemake says of changed params: "… before: 'A','B' now: 'C' ".
    """
    before, _, now = text.partition(" now: ")
    old, new = _mappings(before), _mappings(now)
    changes = [
        f"{key} {_short(a)} → {_short(b)}"
        for left in old
        for right in [max(new, key=lambda other: len(other.keys() & left.keys()), default=None)]
        if right is not None and right.keys() & left.keys()
        for key, a, b in _differences(left, right)
    ]
    changes = list(dict.fromkeys(changes))
    if not changes:
        return "settings or version changed"
    more = f" and {len(changes) - MOST_KEYS} more" if len(changes) > MOST_KEYS else ""
    return f"settings changed: {', '.join(changes[:MOST_KEYS])}{more}"


def _mappings(text: str) -> list[dict[str, Any]]:
    """Return the settings among the params in a text: the literals that are JSON mappings."""
    found = []
    for literal in LITERAL.findall(text):
        try:
            value = json.loads(ast.literal_eval(literal))
        except (ValueError, SyntaxError, TypeError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, old value, new value) of every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield prefix, old, new


def _short(value: Any) -> str:
    text = "null" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 30 else text[:29] + "…"
