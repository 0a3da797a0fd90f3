"""Model card of the leading arm at the largest fraction, or of the pretrained backbones where there is no arm."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.config import Arm
from octdino.config.families import family_of
from octdino.data.cohort_words import Words
from octdino.data.intended_use import NOT_FOR, RESEARCH
from octdino.data.sampling_units import Unit
from octdino.report.cautions import of_run
from octdino.report.conclusions import Verdict, number, percent, span
from octdino.report.data_card import Card, Part, comparison_part, label_part, rows_of
from octdino.report.published import continued_sentence, published_sentence
from octdino.report.results_reader import Pretraining, Results

Runs = list[tuple[Path, dict[str, Any]]]


def runs_of(results: Results, arm: str, fraction: float, backbone: str) -> Runs:
    """Return folder and classifier.json of each fold and seed of an arm."""
    wanted = (arm, fraction, backbone)
    return [
        (folder, metadata)
        for folder, metadata in results.classifiers
        if (metadata.get("arm"), metadata.get("fraction"), metadata.get("backbone")) == wanted
    ]


def backbone_of(results: Results, best: Verdict) -> str:
    """Return the backbone of the leading arm; a verdict names it only where there are several."""
    found = results.metrics[(results.metrics["arm"] == best.arm) & (results.metrics["fraction"] == best.fraction)]
    return best.network or str(found["backbone"].iloc[0])


def model_card(
    results: Results, best: Verdict | None, limits: list[str], versions: list[tuple[str, str]], hardware: list[str]
) -> Card:
    """Return the model card of the arm that leads at the largest fraction.

    Args:
        best: its verdict; None where nothing was classified or no label is evaluable.
        limits: sentences of `limitations`.
    """
    use = Part("Intended use", [RESEARCH, NOT_FOR])
    software = Part(
        "Software and hardware",
        [", ".join(f"{name} {version}" for name, version in versions) + "."]
        + ([f"Trained on {'; '.join(hardware)}."] if hardware else []),
    )
    if best is None:
        pretrained = [line for run in results.pretraining for line in _pretraining(run, results.cohort.words)]
        lines = ["No classifier was compared.", *(pretrained or ["No backbone was trained."])]
        made = Part("What it is", _warned(results, lines))
        return Card("model_card", f"Model card: {results.cohort.name}", [made, use, software])
    backbone, many = backbone_of(results, best), results.cohort.unit.many
    key = (best.arm, best.fraction, backbone)
    runs = runs_of(results, *key)
    parts = [
        Part("What it is", _warned(results, _what(results, best, backbone, runs))),
        use,
        Part("Training data", _training(results, best.arm, backbone, runs)),
        comparison_part(results, *key),
        Part("Against the reference", [f"At {percent(best.fraction)} of the labeled training {many}: {best.text}"]),
        label_part(results, *key),
        Part("Known failures", failures(results, *key)),
        Part("Limitations", limits),
        software,
    ]
    return Card("model_card", f"Model card: {best.arm} on {results.cohort.name}", parts)


def _warned(results: Results, lines: list[str]) -> list[str]:
    """Return the lines, after the warning where patients are unknown."""
    return [results.cohort.unit.warning, *lines] if results.cohort.unit.warning else lines


def _what(results: Results, best: Verdict, backbone: str, runs: Runs) -> list[str]:
    many = results.cohort.unit.many
    lines = [
        f"Arm {best.arm} ({family_of(best.arm, results.pretrained)}): the highest test score at "
        f"{percent(best.fraction)} of the labeled training {many}.",
        "The folder model/ has the arm with the highest validation score, which may be another.",
    ]
    if not runs:
        return [*lines, f"Backbone {backbone}; its folder is not among these results."]
    folder, metadata = runs[0]
    model, inputs = metadata.get("model") or {}, metadata.get("input") or {}
    if model:
        arguments = f" with {json.dumps(model['args'])}" if model.get("args") else ""
        lines.append(f"Backbone {backbone}: timm's {model.get('timm')}{arguments}.")
    if inputs:
        published = (metadata.get("published") or {}).get("standardized_by") == "published"
        lines.append(
            f"Input: {inputs['size']} x {inputs['size']} px, standardized with mean {_numbers(inputs['mean'])} and "
            f"deviation {_numbers(inputs['std'])} of the {'published network' if published else f'training {many}'}."
        )
    names = ", ".join(map(str, metadata.get("labels", [])))
    kind = (
        "classes that exclude each other"
        if metadata.get("exclusive")
        else f"{results.cohort.words.labels}, each on its own"
    )
    lines.append(f"Output: a probability for each of {kind}: {names}.")
    calibration = metadata.get("calibration") or {}
    if calibration.get("temperature") is not None:
        lines.append(f"Calibrated by dividing logits by {calibration['temperature']:.3g}, chosen on validation {many}.")
    where = folder.relative_to(results.root).as_posix()
    others = f"; {len(runs) - 1} more of other folds or seeds beside it" if len(runs) > 1 else ""
    return [*lines, f"Files: {where}/classifier.safetensors and classifier.json{others}."]


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.3f}" for value in (values if isinstance(values, list) else [values]))


def _training(results: Results, arm: str, backbone: str, runs: Runs) -> list[str]:
    lines, unit = [], results.cohort.unit
    for _, metadata in runs[:1]:
        of_patients = f" of {metadata.get('n_train_patients', 'unknown')} training patients" if unit.patients else ""
        lines.append(
            f"Classifier (fold {metadata['fold']}, seed {metadata['seed']}): "
            f"{metadata.get('n_train_scans', 'unknown')} labeled {results.cohort.words.scans}{of_patients}; precision "
            f"{metadata.get('precision') or 'float32, features in float64'}. Penalty or epoch, thresholds and "
            f"temperature are chosen on validation {unit.many}."
        )
    start = Arm.named(arm).init
    pretrained = [run for run in results.pretraining if (run.method, run.backbone) == (start, backbone)]
    for run in pretrained:
        lines += _pretraining(run, results.cohort.words)
    if not pretrained:
        known = {"scratch": "Random weights at the start: no pretraining.", "imagenet": "Starts from ImageNet weights."}
        lines += [known[start]] if start in known else [published_sentence(metadata) for _, metadata in runs[:1]]
    return lines


def _pretraining(run: Pretraining, words: Words) -> list[str]:
    metadata, settings, unit = run.metadata, run.metadata.get("settings") or {}, words.unit
    seen = f"of training {unit.many} only"
    if metadata.get("scope") == "all":
        seen = f"of all {unit.many}, test {unit.many} among them"
    of_patients = f" of {metadata.get('patients', 'unknown')} patients" if unit.patients else ""
    method = metadata.get("method") or {}
    alike = "near or equal" if method.get("soft") else "equal"
    pulled = (
        f"; {words.scans} of {alike} {' or '.join(method['positives'])} attract each other"
        if method.get("positives")
        else ""
    )
    line = (
        f"Pretraining {run.method}, {run.backbone}, {run.run}: {metadata.get('scans', 'unknown')} {words.scans}"
        f"{of_patients} ({seen}), no labels of {words.labels}{pulled}; "
        f"{settings.get('epochs', '?')} epochs, batches of {settings.get('batch_size', '?')}, "
        f"precision {metadata.get('precision') or 'not given'}, "
        f"{metadata.get('images_seen', 'unknown')} images seen."
    )
    warned = [f"{run.method} {run.run}: {text}" for text in [*(metadata.get("alarms") or []), *of_run(run)]]
    return [line, *filter(None, [continued_sentence(metadata)]), *warned]


def failures(results: Results, arm: str, fraction: float, backbone: str) -> list[str]:
    """Return the worst label, the worst group of each grouping, labels without a number, and calibration."""
    own = rows_of(results.metrics, arm, fraction, backbone)
    labels = own[own["label"].isin(results.cohort.labels)]
    lines = []
    scored = labels[(labels["metric"] == "auroc") & labels["value"].notna()]
    if len(scored):
        worst = scored.sort_values(["value", "label"]).iloc[0]
        chance = " The interval includes chance (0.5)." if worst["low"] <= 0.5 else ""
        lines.append(
            f"Worst {results.cohort.words.label}: {worst['label']}, "
            f"AUROC {number(worst['value'])} ({span(worst['low'], worst['high'])}), "
            f"{worst['n_positive_patients']} positive test {results.cohort.unit.many}.{chance}"
        )
    lines += _worst_groups(rows_of(results.subgroups, arm, fraction, backbone), results.cohort.unit)
    unknown = sorted(set(labels.loc[labels["tier"] == "not evaluable", "label"]))
    if unknown:
        lines.append(f"Unknown, too few positive {results.cohort.unit.many}: {', '.join(unknown)}.")
    lines += _slope(own)
    return lines or ["None was measured."]


def _worst_groups(subgroups: pd.DataFrame, unit: Unit) -> list[str]:
    macro = subgroups[(subgroups["label"] == "macro") & subgroups["value"].notna()]
    lines = []
    for name, part in macro[macro["subgroup"] != "all"].groupby("subgroup", sort=False):
        if len(part) < 2:
            continue
        part = part.sort_values(["value", "group"])
        worst, best = part.iloc[0], part.iloc[-1]
        few = ", a small group" if worst["small"] else ""
        lines.append(
            f"Worst by {name}: {worst['group']} with {number(worst['value'])} ({span(worst['low'], worst['high'])}, "
            f"{worst['n_patients']} {unit.many}{few}); best: {best['group']} with {number(best['value'])}."
        )
    return lines


def _slope(own: pd.DataFrame) -> list[str]:
    for metric in ("calibration_slope_calibrated", "calibration_slope"):
        found = own[(own["label"] == "macro") & (own["metric"] == metric) & own["value"].notna()]
        if len(found):
            row = found.iloc[0]
            lean = (
                "too extreme"
                if row["high"] < 1
                else "not extreme enough"
                if row["low"] > 1
                else "not shown to be biased"
            )
            return [
                f"Probabilities are {lean}: calibration slope {number(row['value'])} "
                f"({span(row['low'], row['high'])}; ideal is 1)."
            ]
    return []
