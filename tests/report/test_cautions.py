"""Cautions beside the headline, from histories and tables made up by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from octdino.report.cautions import cautions, flat, of_run, short
from octdino.report.prepared_tables import prepare
from octdino.report.results_reader import Pretraining

WAVE = np.array([0.02, -0.02])  # noise that alternates: its successive differences are -0.04 and 0.04


def run(loss: Any = (), steps: int = 100, backbone: str = "resnet18", **metadata: Any) -> Pretraining:
    """A pretraining of one epoch per loss and `steps` steps per epoch."""
    epoch = np.arange(1, len(loss) + 1)
    return Pretraining(
        "dino", backbone, "fold0-seed0", metadata, pd.DataFrame({"epoch": epoch, "step": steps * epoch, "loss": loss})
    )


def results(runs: list[Pretraining], classifiers_metadata: Any = (), comparison: pd.DataFrame | None = None) -> Any:
    """What the cautions are read from."""
    columns = ["arm", "reference", "label", "metric", "fraction", "seed", "p", "n_resamples"]
    table = pd.DataFrame(columns=columns) if comparison is None else comparison
    table = table.assign(backbone="resnet18")
    scores = pd.DataFrame(columns=["arm", "backbone", "fraction", "seed", "label", "metric", "tier"])
    classifiers = [(Path(), metadata) for metadata in classifiers_metadata]
    return SimpleNamespace(pretraining=runs, classifiers=classifiers, tables=prepare(scores, table))


@pytest.mark.parametrize(
    ("epochs", "steps", "words"),
    [
        (10, 50, ""),
        (9, 100, "9 epochs and 900 steps"),
        (10, 49, "10 epochs and 490 steps"),
        (2, 3, "2 epochs and 6 steps"),
    ],
)
def test_fewer_than_10_epochs_or_500_steps_are_short(epochs: int, steps: int, words: str) -> None:
    found = short(run(np.linspace(6, 3, epochs), steps))
    assert words in found
    assert bool(found) == bool(words)


def test_without_a_history_the_settings_tell_the_epochs() -> None:
    alone = Pretraining("dino", "resnet18", "fold0-seed0", {"settings": {"epochs": 3}}, pd.DataFrame())
    assert "3 epochs only" in short(alone)
    assert short(Pretraining("dino", "resnet18", "fold0-seed0", {}, pd.DataFrame())) == ""


@pytest.mark.parametrize(
    ("loss", "is_flat"),
    [
        (8 * np.exp(-np.arange(20) / 9), False),
        (5.0 - 0.1 * np.arange(20), False),
        (np.full(20, 5.0), True),
        (5.0 + 0.1 * np.arange(20), True),
        (np.r_[3.0, 5.0, 6.5, np.linspace(6.8, 5.0, 17)], False),  # rises while a queue fills, then falls
        (np.r_[3.0, 5.0, 6.5, np.full(17, 6.8)], True),
        (5.545 - 0.0005 * np.arange(20), True),  # stays at ln 256: a fall of 0.15 %
        (5.0 + np.tile(WAVE, 10), True),
        # Noise of +-0.25 by turns: its differences of +-0.5 have a deviation of 0.51, over sqrt(2) that is 0.36, and
        # three standard errors of a difference of two means of 5 epochs are 0.69. The quarters lie 15 epochs apart.
        (5.0 - 0.020 * np.arange(20) + np.tile([0.25, -0.25], 10), True),  # falls by 0.30, and 0.10 of noise
        (5.0 - 0.060 * np.arange(20) + np.tile([0.25, -0.25], 10), False),  # falls by 0.90, and 0.10 of noise
        (np.full(3, 5.0), False),  # too few epochs to tell
        (np.array([5.0, np.nan, 5.0, 5.0, 5.0]), True),
    ],
)
def test_a_loss_that_does_not_fall_beyond_its_noise_is_flat(loss: np.ndarray, is_flat: bool) -> None:
    assert bool(flat(run(loss))) == is_flat


def test_a_flat_loss_is_told_with_its_numbers() -> None:
    assert flat(run(np.full(12, 5.0))) == ("the pretraining loss did not fall: 5 at its highest, 5 in the last epochs")
    assert flat(run(np.full(12, 5.0), alarms=["collapsed to uniform"])) == "", "that has its own notice"
    assert len(of_run(run(np.full(4, 5.0), 1))) == 2


def test_one_sentence_per_network_says_of_how_many_runs() -> None:
    good = run(np.linspace(6, 3, 20))
    found = cautions(results([good, run(np.full(20, 4.0)), run(np.linspace(6, 3, 2), backbone="vit")]), 0.95)
    assert found == [
        "dino · vit: pretrained for 2 epochs and 200 steps only (short: fewer than 10 epochs or 500 steps)",
        "dino · resnet18: the pretraining loss did not fall: 4 at its highest, 4 in the last epochs (1 of 2 runs)",
    ]
    assert cautions(results([good]), 0.95) == []


@pytest.mark.parametrize(
    ("arm", "epochs", "min_steps", "scans", "steps"),
    [
        ("scratch-finetune", 3, 1, 64, 6),
        ("scratch-finetune", 30, 1, 10, 30),  # one step an epoch
        ("scratch-finetune", 3, 200, 64, None),
        ("scratch-finetune", 50, 1, 64, None),
        ("dino-linear", 3, 1, 64, None),
    ],
)
def test_few_steps_of_fine_tuning(arm: str, epochs: int, min_steps: int, scans: int, steps: int | None) -> None:
    settings = {"epochs": epochs, "min_steps": min_steps, "batch_size": 32}
    metadata = {"arm": arm, "backbone": "resnet18", "n_train_scans": scans, "settings": settings}
    found = cautions(results([], [metadata]), 0.95)
    wanted = f"{arm} · resnet18: fine-tuned for at most {steps} steps (short: fewer than 100)"
    assert found == ([wanted] if steps else [])


def test_too_few_resamples_for_so_many_comparisons() -> None:
    """Holm multiplies the least p by the number of comparisons: 25 x 2 / 1001 = 0.04995, 26 x 2 / 1001 = 0.05195."""
    common = {"reference": "scratch-finetune", "label": "macro", "metric": "auroc", "fraction": 1.0, "seed": 0}
    table = pd.DataFrame([{"arm": f"a{i}-linear", **common, "p": 0.01, "n_resamples": 1000} for i in range(26)])
    (found,) = cautions(results([], comparison=table), 0.95)
    assert "26 comparisons with scratch-finetune in macro AUROC on 1,000 resamples" in found
    assert "below 0.0519" in found
    assert cautions(results([], comparison=table.head(25)), 0.95) == []
