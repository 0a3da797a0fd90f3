"""Cautions beside the headline: short training, losses that did not fall, too few bootstrap resamples.

The thresholds are conventions of this project; docs/evaluation.md, "Cautions", gives them with their reasons.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from octdino.report.results_reader import Pretraining, Results
from octdino.stats.significance import alpha, least_adjusted_p

MIN_EPOCHS = 10  # of a pretraining
MIN_STEPS = 500  # of a pretraining
MIN_TUNING_STEPS = 100  # of a fine-tuned arm, the reference among them
MIN_FALL = 0.01  # of the loss, as a share of its highest value


def cautions(results: Results, confidence: float) -> list[str]:
    """Return the cautions, one sentence per kind and network."""
    pretraining = [*_per_network(results.pretraining, short), *_per_network(results.pretraining, flat)]
    return [*too_few_resamples(results, confidence), *pretraining, *short_tuning(results)]


def of_run(run: Pretraining) -> list[str]:
    """Return the cautions of one pretraining run."""
    return [text for text in (short(run), flat(run)) if text]


def short(run: Pretraining) -> str:
    """Return epochs and steps of a run that has fewer than MIN_EPOCHS or MIN_STEPS; empty otherwise."""
    epochs, steps = _last(run, "epoch"), _last(run, "step")
    if epochs is None:
        epochs = (run.metadata.get("settings") or {}).get("epochs")
    if (epochs is None or epochs >= MIN_EPOCHS) and (steps is None or steps >= MIN_STEPS):
        return ""
    counted = [f"{value:,} {name}" for value, name in ((epochs, "epochs"), (steps, "steps")) if value is not None]
    return f"pretrained for {' and '.join(counted)} only (short: fewer than {MIN_EPOCHS} epochs or {MIN_STEPS} steps)"


def _last(run: Pretraining, column: str) -> int | None:
    known = run.history[column].dropna() if column in run.history else pd.Series(dtype=float)
    return int(known.max()) if len(known) else None


def flat(run: Pretraining) -> str:
    """Return highest and last loss of a run whose loss did not fall; empty if it fell or this cannot be judged.

    The mean of the last quarter of the epochs, k of them, is compared with the highest mean of k consecutive epochs:
    with a queue of negatives a loss rises before it falls. It fell if the difference is above three standard errors,
    3 s sqrt(2 / k), and above MIN_FALL of the highest mean. s is the noise from epoch to epoch: the standard deviation
    of the loss's successive differences, which a steady trend does not enter, divided by sqrt(2). Fewer than four
    epochs are too few to judge. A run with an alarm has its own notice.
    """
    loss = run.history["loss"].dropna() if "loss" in run.history else pd.Series(dtype=float)
    if len(loss) < 4 or run.metadata.get("alarms"):
        return ""
    k = len(loss) // 4
    highest, last = float(loss.rolling(k).mean().max()), float(loss.tail(k).mean())
    noise = float(loss.diff().std()) / math.sqrt(2)
    if highest - last > max(3 * noise * math.sqrt(2 / k), MIN_FALL * abs(highest)):
        return ""
    return f"the pretraining loss did not fall: {highest:.4g} at its highest, {last:.4g} in the last epochs"


def _per_network(runs: Iterable[Pretraining], check: Callable[[Pretraining], str]) -> list[str]:
    """One sentence per method and backbone: the first run's, and of how many runs it is."""
    networks: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        networks.setdefault((run.method, run.backbone), []).append(check(run))
    found = []
    for (method, backbone), texts in networks.items():
        if given := [text for text in texts if text]:
            count = f" ({len(given)} of {len(texts)} runs)" if len(texts) > 1 else ""
            found.append(f"{method} · {backbone}: {given[0]}{count}")
    return found


def short_tuning(results: Results) -> list[str]:
    """Return one sentence per arm that was fine-tuned for fewer than MIN_TUNING_STEPS steps at most."""
    fewest: dict[tuple[str, str], int] = {}
    for _, metadata in results.classifiers:
        steps = _tuning_steps(metadata)
        if steps is not None and steps < MIN_TUNING_STEPS:
            key = (str(metadata["arm"]), str(metadata["backbone"]))
            fewest[key] = min(steps, fewest.get(key, steps))
    return [
        f"{arm} · {backbone}: fine-tuned for at most {steps} steps (short: fewer than {MIN_TUNING_STEPS})"
        for (arm, backbone), steps in sorted(fewest.items())
    ]


def _tuning_steps(metadata: dict[str, Any]) -> int | None:
    """Return the number of steps of the chosen candidate, from settings and scans; None for an arm not fine-tuned."""
    settings = {**(metadata.get("settings") or {}), **(metadata.get("chosen") or {})}
    scans = metadata.get("n_train_scans")
    if scans is None or not str(metadata.get("arm")).endswith("-finetune"):
        return None
    if not {"epochs", "min_steps", "batch_size"} <= settings.keys():  # of a run before they were written
        return None
    per_epoch = max(int(scans) // min(int(settings["batch_size"]), int(scans)), 1)
    return per_epoch * max(int(settings["epochs"]), math.ceil(int(settings["min_steps"]) / per_epoch))


def too_few_resamples(results: Results, confidence: float) -> list[str]:
    """Return a sentence per reference against which no adjusted p of the leading metric can be small enough."""
    comparisons = results.tables.comparisons
    macro = comparisons[comparisons["p"].notna()]
    found, metric = {}, results.tables.metric_name
    for (reference, _, _), family in macro.groupby(["reference", "fraction", "seed"], dropna=False):
        count, resamples = len(family), int(family["n_resamples"].max())
        if (least := least_adjusted_p(count, resamples)) >= alpha(confidence):
            found[reference] = (
                f"{count} comparisons with {reference} in {metric} on {resamples:,} resamples: no adjusted p can be "
                f"below {least:.3g}, so no difference can be shown; raise evaluate.resamples"
            )
    return list(found.values())
