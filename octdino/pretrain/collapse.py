"""Collapse warnings: detect a collapsed pretraining run from its history, with a remedy per kind of collapse.

The measures of DINO's two collapses are those of Caron et al. 2021, sec. 5.3: the teacher's entropy at ln K (every scan
gets the same uniform target), or the entropy of the mean target at 0 (every scan gets the same one-hot target).
"""

import math
from collections.abc import Callable

Row = dict[str, float]
MIN_EPOCHS = 3  # and a fifth of the run: early in a run all of these signs are normal

UNIFORM = (
    "collapsed to uniform: the teacher's entropy stays at ln K; remedy: a lower teacher_temp (0.02), "
    "centering sinkhorn, fewer prototypes, a larger lr"
)
ONE_PROTOTYPE = (
    "collapsed to few prototypes: the entropy of the mean target is near 0; remedy: centering mean or sinkhorn, "
    "a higher teacher_temp, prototypes frozen for longer (freeze_last_layer)"
)
POINT = (
    "collapsed to a point: features of all scans are nearly equal; remedy: batch norm in the head, a larger lr, "
    "a momentum nearer to 1"
)
LINE = "collapsed to few dimensions: RankMe is below 2; remedy: a larger batch, a smaller weight_decay, a wider head"

SIGNS: dict[str, Callable[[Row], bool]] = {
    UNIFORM: lambda row: row["teacher_entropy"] > 0.98 * row["ln_k"],
    ONE_PROTOTYPE: lambda row: row["mean_entropy"] < 0.1 * row["ln_k"],
    POINT: lambda row: row["feature_std"] < 0.002,  # a healthy vision transformer was measured at 0.01
    LINE: lambda row: row["rankme"] < 2,
}


def collapse_warnings(history: list[Row], epochs: int) -> list[str]:
    """Return one warning with its remedy per kind of collapse at the end of `history`.

    A sign counts if every row of the last epochs that contains its measures shows it: at least three epochs and a fifth
    of the run, or the last two such rows where measures are taken less often.

    Args:
        history: one row per epoch.
        epochs: length of the run.
    """
    last = max(MIN_EPOCHS, math.ceil(epochs / 5))
    if len(history) < last:
        return []
    return [text for text, sign in SIGNS.items() if _lasts(history, last, sign)]


def _lasts(history: list[Row], last: int, sign: Callable[[Row], bool]) -> bool:
    shown: list[bool] = []
    for age, row in enumerate(reversed(history)):
        try:
            if age < last or len(shown) < 2:
                shown.append(sign(row))
        except KeyError:  # not measured in this epoch, or not by this method
            continue
    return len(shown) >= 2 and all(shown)
