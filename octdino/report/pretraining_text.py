"""Sentences of the methods text on pretraining: network, method, scans, views, optimizer."""

from typing import Any

from octdino.config import METHODS
from octdino.config.eye_visits import VisitViews
from octdino.report.published import continued_sentence
from octdino.report.references import cite, references_of
from octdino.report.results_reader import Pretraining, Results

OPTIMIZERS = {"adamw": f"AdamW {cite('loshchilov2019decoupled')}", "sgd": "stochastic gradient descent"}


def listed(names: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def pretraining_text(results: Results) -> list[str]:
    """Return one sentence per network, scans and settings of pretraining, with all methods that share them.

    After these, one per published weights that methods continue from.
    """
    networks: dict[tuple[str, str], list[Pretraining]] = {}
    for run in results.pretraining:
        networks.setdefault((run.method, run.backbone), []).append(run)
    alike: dict[tuple[str, str], list[str]] = {}
    for runs in networks.values():
        network = _backbone(runs[0].metadata.get("spec") or {}, runs[0].backbone)
        alike.setdefault((network, _how(results, runs)), []).append(_method(runs[0]))
    lines = [
        f"{network} was pretrained without labels by {listed(names)}, {'each ' if len(names) > 1 else ''}{how}."
        for (network, how), names in alike.items()
    ]
    return lines + list(dict.fromkeys(filter(None, (continued_sentence(run.metadata) for run in results.pretraining))))


def _method(run: Pretraining) -> str:
    """Return name, references and family of a method, and what is particular of the variant that was run."""
    method = run.metadata.get("method") or {}
    kind = str(method.get("method") or run.method)
    name, keys = references_of("method").get(kind, (run.method, ()))
    family = f" ({METHODS[kind].family})" if kind in METHODS else ""
    alias = f" (here {run.method})" if run.method not in (method.get("method"), name, name.lower()) else ""
    pulled = positives_text(kind, method)
    return f"{name}{f' {cite(*keys)}' if keys else ''}{family}{alias}{pulled}"


def positives_text(kind: str, method: dict[str, Any]) -> str:
    """Return which other scans are positives, with references; empty where views are of one scan."""
    positives = method.get("positives")
    if not positives:
        return ""
    limits = [
        f"{method[name]:g} {name.removeprefix('positives_')}"
        for name in ("positives_weeks", "positives_visits")
        if method.get(name) is not None
    ]
    near = f" at most {' or '.join(limits)} apart" if limits else ""
    if kind in METHODS and issubclass(METHODS[kind], VisitViews):
        return f" with another visit of the same eye{near} as the second view {cite('holland2024metadata')}"
    soft = f", weighted by how near they are {cite('dufumier2021contrastive')}" if method.get("soft") else ""
    equal = "near" if method.get("soft") and not {"eye", "patient"} & set(positives) else "equal"
    eyes = f", visits of an eye{near} {cite('holland2024metadata')}" if near else ""
    return f" with {equal} {listed(positives)} as positives {cite('kokilepersaud2023clinically')}{soft}{eyes}"


def _how(results: Results, runs: list[Pretraining]) -> str:
    """Return scans and settings of the runs of one method, from the metadata of the first."""
    metadata, words = runs[0].metadata, results.cohort.words
    settings = metadata.get("settings") or {}
    seen = f"training {words.unit.many} only" if metadata.get("scope") != "all" else f"all {words.unit.many}"
    count = metadata.get("scans")
    amount = f"{count:,} {words.scans}" if count is not None else f"the {words.scans}"
    details = [
        *([f"{settings['epochs']} epochs"] if settings.get("epochs") else []),
        *([f"batches of {settings['batch_size']}"] if settings.get("batch_size") else []),
        *_views(settings.get("augment") or {}),
        *_optimizer(metadata.get("method") or {}),
        *([f"{metadata['precision']} arithmetic"] if metadata.get("precision") else []),
        *([f"{len(runs)} runs (seeds or folds)"] if len(runs) > 1 else []),
    ]
    return f"on {amount} of {seen}{': ' if details else ''}{', '.join(details)}"


def _backbone(spec: dict[str, Any], name: str) -> str:
    timm = str(spec.get("timm") or name)
    keys = [key for prefix, (_, found) in references_of("backbone").items() if timm.startswith(prefix) for key in found]
    changed = f" with {', '.join(f'{key} {value}' for key, value in spec['args'].items())}" if spec.get("args") else ""
    named = f" ({name})" if name != timm else ""
    return f"The network {timm}{named} of timm {cite(*keys, 'wightman2019timm')}{changed}"


def _views(augment: dict[str, Any]) -> list[str]:
    if not augment.get("global_size"):
        return []
    views = f"two global views of {augment['global_size']} px"
    if augment.get("local_views"):
        views += f" and {augment['local_views']} local views of {augment.get('local_size')} px"
    return [f"{views} per image"]


def _optimizer(method: dict[str, Any]) -> list[str]:
    if not {"optimizer", "lr"} <= method.keys():
        return []
    name = OPTIMIZERS.get(str(method["optimizer"]), str(method["optimizer"]))
    return [f"{name} with a peak learning rate of {method['lr']:g} per 256 images on a cosine schedule"]
