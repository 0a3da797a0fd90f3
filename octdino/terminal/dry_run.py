"""What a dry run shows: one row per rule with the number of its jobs and why they would run, in words."""

import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

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
AFTER = "it follows a job that runs again"


class DryRun:
    """Collects the jobs of a dry run."""

    def __init__(self) -> None:
        self.jobs: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, rule: str, reason: str) -> None:
        """Add a job with the reason that Snakemake gives."""
        if rule not in TARGETS:
            self.jobs[rule][reason_words(reason)] += 1

    def lines(self, width: int | None = None) -> list[str]:
        """Return the table, or nothing if there is no job."""
        if not self.jobs:
            return []
        rows = [["rule", "jobs", "why"]]
        for rule, reasons in self.jobs.items():
            many = len(reasons) > 1
            why = "; ".join(f"{n}: {words}" if many else words for words, n in reasons.most_common())
            rows.append([rule, str(reasons.total()), why])
        rows.append(["total", str(sum(reasons.total() for reasons in self.jobs.values())), ""])
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
