"""Whether two test sets are the same by content: pixels, labels and which scans are of one patient."""

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from octdino.cli.side_by_side.finished_runs import FinishedRun
from octdino.evaluate.classifier_runs import Run


class Match(NamedTuple):
    """The classifiers of a run on another run's test set, or why their differences cannot be paired."""

    classifiers: list[Run] | None
    reason: str


def on_the_same_scans(run: FinishedRun, reference: FinishedRun) -> Match:
    """Return the classifiers of `run` with their predictions in the order of the reference's test scans.

    Names of scans and patients may differ; decoded pixels, labels and the division into patients may not.
    """
    keys, wanted = _keys(run.test.rows), _keys(reference.test.rows)
    scans = reference.test.words.scans
    if keys is None or wanted is None:
        return Match(None, f"the manifest of {run.name if keys is None else reference.name} has no pixel hashes")
    here, there = len(set(keys) - set(wanted)), len(set(wanted) - set(keys))
    if here or there:
        return Match(
            None,
            f"their test sets differ: {here} of {len(keys)} test {scans} are only in {run.name}, {there} of "
            f"{len(wanted)} only in {reference.name}",
        )
    place = pd.Index(keys).get_indexer(pd.Index(wanted))
    other = ~((run.test.truth[place] == reference.test.truth) | _both_unknown(run.test.truth[place], reference))
    if other.any():
        return Match(None, f"labels of {int(other.any(axis=1).sum())} test {scans} differ")
    if not np.array_equal(pd.factorize(run.test.patient[place])[0], pd.factorize(reference.test.patient)[0]):
        return Match(None, f"their test {scans} are divided into {reference.test.unit.many} in another way")
    return Match([_reordered(one, place) for one in run.classifiers], "")


def _keys(rows: pd.DataFrame) -> list[tuple[str, int]] | None:
    """Return the key of each scan: its pixels, and a number where several scans share them; None without hashes."""
    hashes = [str(value) for value in rows["pixel_hash"].fillna("")]
    if not all(hashes):
        return None
    seen: Counter[str] = Counter()
    found = []
    for value in hashes:
        found.append((value, seen[value]))
        seen[value] += 1
    return found


def _both_unknown(truth: np.ndarray, reference: FinishedRun) -> np.ndarray:
    unknown: np.ndarray = np.isnan(truth) & np.isnan(reference.test.truth)
    return unknown


def _reordered(one: Run, place: np.ndarray) -> Run:
    return replace(
        one,
        probabilities=one.probabilities[place],
        calibrated=one.calibrated[place],
        decided={name: values[place] for name, values in one.decided.items()},
    )
