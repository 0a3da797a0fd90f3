"""Power of the comparison: how many test patients would show a difference that matters, per pair of arms."""

from typing import Any

import numpy as np
import pandas as pd

from octdino.config import EvaluateSettings
from octdino.data.schemas.evaluate_schemas import POWER
from octdino.evaluate.classifier_runs import Key
from octdino.evaluate.comparable_runs import TestSet
from octdino.stats.power import patients_for_power, power_of
from octdino.stats.significance import alpha


def power_table(
    settings: EvaluateSettings, test: TestSet, metric: str, scores: dict[Key, np.ndarray], paired: list[tuple[Key, Key]]
) -> pd.DataFrame:
    """Return one row per pair of arms; see POWER. Its basis is the bootstrap standard error of the paired difference.

    The variance over patients falls with their number; of a mean over seeds the variance between seeds does not.

    Args:
        metric: the leading one.
        scores: float64 [C] of the leading metric of each classifier, and of the means over seeds.
        paired: arm and reference.
    """
    rows: list[dict[str, Any]] = []
    level, patients = alpha(settings.confidence), test.patients
    for key, reference in paired:
        difference = scores[key] - scores[reference]
        if not np.isfinite(difference[0]):
            continue
        total = _variance(settings, difference)
        over_patients = _variance(settings, _seed_mean(key, scores) - _seed_mean(reference, scores))
        small = patients / (patients - 1) if patients > 1 else np.nan  # the bootstrap's variance is too small by that
        error, seed_error = float(np.sqrt(over_patients * small)), float(np.sqrt(max(total - over_patients, 0.0)))
        rows.append(
            {
                **key._asdict(), "reference": reference.arm, "fold": test.fold, "metric": metric,
                "difference": settings.relevant_difference, "standard_error": error, "seed_error": seed_error,
                "n_patients": patients, "level": level,
                "power": settings.power,
                "power_now": power_of(float(np.hypot(error, seed_error)), settings.relevant_difference, level),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=[column.name for column in POWER])
    family = table.groupby(["reference", "fraction", "seed"], dropna=False)["arm"]
    table["comparisons"] = family.transform("size")
    for column, divisor in (("n_needed", 1), ("n_needed_adjusted", table["comparisons"])):
        levels = (table["level"] / divisor).to_numpy(float)
        errors = table[["standard_error", "seed_error"]].to_numpy(float)
        needed = [
            patients_for_power(patients, error, settings.relevant_difference, settings.power, float(level), seeds)
            for (error, seeds), level in zip(errors, levels, strict=True)
        ]
        table[column] = pd.Series(needed, dtype=float, index=table.index).replace(np.inf, np.nan)
    return table


def _variance(settings: EvaluateSettings, values: np.ndarray) -> float:
    replicates = values[1 : 1 + settings.resamples]
    known = replicates[np.isfinite(replicates)]
    return float(known.var(ddof=1)) if len(known) > 1 else np.nan


def _seed_mean(key: Key, scores: dict[Key, np.ndarray]) -> np.ndarray:
    """Return the scores of a classifier; of a mean over seeds that of the same seeds in every resample."""
    if key.seed is not None:
        return scores[key]
    seeds = [one for one in scores if one.seed is not None and one._replace(seed=None) == key]
    mean: np.ndarray = np.mean([scores[one] for one in seeds], axis=0)
    return mean
