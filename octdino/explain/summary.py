"""Summary rows of values per scan: mean, bootstrap confidence interval over patients, number of scans and patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from octdino.config import ExplainSettings
from octdino.stats.bootstrap import interval, resample_patients, resampled_means

MACRO = "macro"


def summarize(
    values: np.ndarray, patient: np.ndarray, names: Sequence[str], settings: ExplainSettings, chance: np.ndarray | None
) -> list[dict[str, Any]]:
    """Return one row per column that has a value, and where there are several their mean as `macro`.

    Args:
        values: [N, M], one row per scan, NaN where there is nothing to measure.
        patient: int64 [N].
        names: M, of the columns; `label` of the rows.
        chance: the level of chance of each value, [N, M], averaged as the values are; None where there is none.

    Returns:
        Dicts of label, value, low, high, chance, n_scans, n_patients. A single patient has no interval.
    """
    known = np.isfinite(values)
    kept = np.flatnonzero(known.any(axis=0))
    if not len(kept):
        return []
    index = np.unique(patient, return_inverse=True)[1]
    times = resample_patients(int(index.max()) + 1, settings.resamples, 0)
    replicates = resampled_means(values[:, kept], index, times)
    levels = np.full(len(kept), np.nan) if chance is None else np.nanmean(chance[:, kept], axis=0)
    rows = [
        _row(names[int(column)], replicates[:, place], known[:, column], index, settings, levels[place])
        for place, column in enumerate(kept)
    ]
    if len(kept) > 1:
        shown = np.isfinite(replicates)
        mean = np.where(shown, replicates, 0).sum(1) / np.maximum(shown.sum(1), 1)
        rows.append(_row(MACRO, mean, known.any(axis=1), index, settings, levels.mean()))
    return rows


def _row(
    label: str, replicates: np.ndarray, known: np.ndarray, index: np.ndarray, settings: ExplainSettings, chance: float
) -> dict[str, Any]:
    patients = len(set(index[known]))
    low, high = interval(replicates[1:], settings.confidence) if patients > 1 else (np.nan, np.nan)
    numbers = {"value": replicates[0], "low": low, "high": high, "chance": chance}
    return {"label": label, **numbers, "n_scans": int(known.sum()), "n_patients": patients}
