"""Is a run sitting in a collapse? One line each, with the remedy.

The measures of the two collapses are those of Caron et al. 2021, sec. 5.3: the teacher's entropy at ln K (every scan
gets the same flat answer) or at 0 for every scan and their mean (every scan gets the same certain answer).
"""

import math
from collections.abc import Callable

Row = dict[str, float]
LASTING = 3  # epochs at least, and a fifth of the run: early in a run all of this is normal

UNIFORM = (
    "collapsed to uniform: the teacher's entropy sits at ln K; remedy: a lower teacher_temp (0.02), "
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
    POINT: lambda row: row["feature_std"] < 0.002,  # a healthy vision transformer was seen at 0.01
    LINE: lambda row: row["rankme"] < 2,
}


def alarms(history: list[Row], epochs: int) -> list[str]:
    """What is wrong at the end of `history` (a row an epoch, of `epochs` planned), and what helps.

    A sign counts if every row of the last epochs that carries its measures shows it: three epochs at least, and a
    fifth of the run; or the last two such rows, where measures are taken more seldom.
    """
    last = max(LASTING, math.ceil(epochs / 5))
    if len(history) < last:
        return []
    return [text for text, shown in SIGNS.items() if _sits(history, last, shown)]


def _sits(history: list[Row], last: int, shown: Callable[[Row], bool]) -> bool:
    found: list[bool] = []
    for place, row in enumerate(reversed(history)):
        try:
            if place < last or len(found) < 2:
                found.append(shown(row))
        except KeyError:  # not measured in this epoch, or not by this method
            continue
    return len(found) >= 2 and all(found)
