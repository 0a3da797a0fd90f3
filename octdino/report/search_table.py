"""Table of the search: what validation patients chose for each arm, such as its learning rate or penalty."""

import math
from collections import Counter, defaultdict
from typing import Any

from octdino.report.conclusions import NOTHING, number, percent
from octdino.report.results_reader import Results
from octdino.report.tables import Cell

WORDS = {
    "lr": "learning rate",
    "min_steps": "steps",
    "inverse_regularization": "C",
    "neighbors": "neighbors",
}  # settings of a candidate


def search_table(results: Results) -> dict[str, Any]:
    """Return one row per fraction, arm and backbone: number of candidates, those chosen, best validation scores.

    Empty where no classifier says what it chose among.
    """
    several = results.tables.several_backbones
    groups: dict[tuple[float, str, str], list[dict[str, Any]]] = defaultdict(list)
    for _, metadata in results.classifiers:
        if metadata.get("candidates"):
            key = (float(metadata["fraction"]), str(metadata["arm"]), str(metadata["backbone"]))
            groups[key].append(metadata)
    rows = []
    for (fraction, arm, backbone), runs in sorted(groups.items()):
        chosen = Counter(_in_words(run["chosen"]) for run in runs)
        words = ", ".join(text if len(runs) == 1 else f"{text} ({count})" for text, count in chosen.most_common())
        count = len(runs[0]["candidates"])
        names = [Cell(percent(fraction), sort=fraction), Cell(arm, sort=arm)]
        names += [Cell(backbone, sort=backbone)] if several else []
        rows.append([*names, Cell(str(count), sort=float(count)), Cell(words, sort=words), _scores(runs)])
    if not rows:
        return {}
    heads = ["labels", "arm", *(["backbone"] if several else []), "candidates", "chosen", "validation score"]
    return {"heads": heads, "rows": rows}


def _in_words(candidate: dict[str, Any]) -> str:
    return ", ".join(f"{words} {candidate[name]:g}" for name, words in WORDS.items() if name in candidate)


def _scores(runs: list[dict[str, Any]]) -> Cell:
    """The chosen candidates' scores on validation patients, as a range over seeds and folds."""
    values = [float(score) for run in runs if (score := run["chosen"].get("validation_score")) is not None]
    if not values:
        return Cell(NOTHING, sort=-math.inf)
    low, high = number(min(values)), number(max(values))
    return Cell(low if low == high else f"{low} to {high}", sort=sum(values) / len(values))
