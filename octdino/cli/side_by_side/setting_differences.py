"""Which settings differ between runs, from the configuration that their metadata records."""

import json
from collections import defaultdict
from typing import Any, NamedTuple

from octdino.cli.side_by_side.finished_runs import FinishedRun

MISSING = "\N{EN DASH}"
OF_THE_PLACE = ("cohort.root", "cohort.title")  # where a cohort is, and what it is called: no setting of a result
OF_ONE_RUN = ("methods", "variants", "backbones")  # of the workflow; the method's own settings are recorded beside

Values = dict[tuple[str, str], set[str]]  # (key, method or arm): values as JSON, several where folds or seeds differ


class Difference(NamedTuple):
    """A setting, and what is shown of it: its value in each run, as text."""

    key: str
    shown: list[str]


def setting_differences(runs: list[FinishedRun]) -> list[Difference]:
    """Return the settings that differ, sorted by key: of cohort, pretraining methods and arms that all runs have.

    A setting that differs alike in all methods (or arms) is one row without their names.
    """
    recorded = [_recorded(run) for run in runs]
    keys: dict[str, set[str]] = defaultdict(set)
    for values in recorded:
        for key, who in values:
            keys[key].add(who)
    shared = {section: _shared(recorded, section) for section in ("cohort", "pretrain", "classify")}
    found: list[Difference] = []
    for key in sorted(keys):
        section = key.partition(".")[0]
        rows = {
            who: [_text(values.get((key, who))) for values in recorded]
            for who in sorted(keys[key] & shared[section])
        }  # fmt: skip
        differing = {who: row for who, row in rows.items() if len(set(row)) > 1}
        if len(differing) == len(rows) and len({tuple(row) for row in differing.values()}) == 1:
            found.append(Difference(key, next(iter(differing.values()))))
        else:
            rest = key.partition(".")[2]
            found += [Difference(f"{section}.{who}.{rest}", row) for who, row in differing.items()]
    return found


def only_in(runs: list[FinishedRun]) -> list[str]:
    """Return a sentence per kind of thing that some runs have and others lack: methods, arms, fractions, labels."""
    parts: dict[str, list[set[str]]] = {
        "Pretraining": [{one.method for one in run.results.pretraining} for run in runs],
        "Arms": [{one.key.arm for one in run.classifiers} for run in runs],
        "Backbones": [{one.key.backbone for one in run.classifiers} for run in runs],
        "Fractions": [{f"{100 * one.key.fraction:g} %" for one in run.classifiers} for run in runs],
        "Labels": [set(run.results.cohort.labels) for run in runs],
    }
    without = [run.name for run in runs if not run.results.cohort.has_store]
    sentences = [f"No scans.h5, so settings of the cohort are not compared: {', '.join(without)}."] if without else []
    for name, sets in parts.items():
        common = set.intersection(*sets)
        own = [
            f"{run.name}: {', '.join(sorted(found - common))}"
            for run, found in zip(runs, sets, strict=True)
            if found - common
        ]
        if own:
            sentences.append(f"{name} that not all runs have: {'; '.join(own)}.")
    return sentences


def _shared(recorded: list[Values], section: str) -> set[str]:
    """Return the methods (or arms) that every run has in a section of the settings; of the cohort one empty name."""
    return set.intersection(*({who for key, who in values if key.startswith(f"{section}.")} for values in recorded))


def _recorded(run: FinishedRun) -> Values:
    """Return every recorded setting of a run."""
    found: Values = defaultdict(set)

    def add(prefix: str, who: str, value: Any) -> None:
        for key, text in _flat(prefix, value):
            if key not in OF_THE_PLACE:
                found[key, who].add(text)

    if run.results.cohort.has_store:
        attributes = run.results.cohort.attributes.plain()
        add("cohort", "", attributes["settings"])
        add("cohort.octdino", "", attributes.get("octdino"))
    for one in run.results.pretraining:
        metadata = one.metadata
        settings = {key: value for key, value in metadata.get("settings", {}).items() if key not in OF_ONE_RUN}
        for part in (settings, metadata.get("method", {}), {"scope": metadata.get("scope")}):
            add("pretrain", one.method, {key: value for key, value in part.items() if key not in OF_ONE_RUN})
        for name in ("model", "octdino", "precision"):
            add(f"pretrain.{name}", one.method, metadata.get(name))
    for _, card in run.results.classifiers:
        if card["arm"] == "clinical":
            continue
        add("classify", card["arm"], card.get("settings", {}))
        for name in ("model", "octdino"):
            add(f"classify.{name}", card["arm"], card.get(name))
        add("classify.input.size", card["arm"], (card.get("input") or {}).get("size"))
        add("classify.embeddings.readout", card["arm"], (card.get("embeddings") or {}).get("readout"))
    return found


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Return the leaves of nested settings: dotted key, and value as JSON."""
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _flat(f"{prefix}.{key}", inner)]
    return [(prefix, json.dumps(value, sort_keys=True, ensure_ascii=False))]


def _text(values: set[str] | None) -> str:
    if values is None:
        return MISSING
    return ", ".join(text.removeprefix('"').removesuffix('"') for text in sorted(values))
