"""Choice among candidates, such as learning rates or penalties, by their scores on validation patients.

A result is plain values for classifier.json: the candidate's settings and `validation_score`, None where it diverged.
"""

import math
from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]


def finite_or_none(score: float) -> float | None:
    """Return the score as JSON can hold it."""
    return score if math.isfinite(score) else None


def score_of(result: Result) -> float:
    """Return the validation score; minus infinity where the candidate diverged."""
    score = result["validation_score"]
    return -math.inf if score is None else float(score)


def best_index(results: Sequence[Result]) -> int:
    """Return the position of the best result; of equals the first."""
    return max(range(len(results)), key=lambda index: score_of(results[index]))


def search_of(results: list[Result]) -> dict[str, Any]:
    """Return what classifier.json says about a search: all candidates, and the chosen one."""
    return {"chosen": results[best_index(results)], "candidates": results}
