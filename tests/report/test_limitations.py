"""Sentences of the page's limitations."""

import pandas as pd

from octdino.report.limitations import _single_seeds
from tests.report.test_conclusions import REFERENCE, tables


def test_arms_with_one_seed_among_others_with_several_are_named_in_the_limitations() -> None:
    metrics, _ = tables({0.1: (0.1, 0.05, 0.2)}, clinical=True)
    assert _single_seeds(metrics) == " Run with one seed only, whose variation is in no interval: " + (
        "dino-linear, scratch-finetune."
    )
    second = metrics[metrics["arm"] == REFERENCE].assign(seed=1)
    assert _single_seeds(pd.concat([metrics, second])).endswith(": dino-linear.")
    assert _single_seeds(pd.concat([metrics, metrics.assign(seed=1)])) == ""
