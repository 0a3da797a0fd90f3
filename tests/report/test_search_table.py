"""Table of the search: what classifier.json says, counted over seeds."""

import json
from pathlib import Path
from typing import Any

import pytest

from octdino.report.conclusions import NOTHING
from octdino.report.results_reader import read_results
from octdino.report.search_table import search_table
from tests.results import write_arm, write_cohort, write_tables

CHOSEN: dict[tuple[str, int], dict[str, Any]] = {
    ("scratch-finetune", 0): {"lr": 0.003, "min_steps": 1000, "validation_score": 0.7, "best_step": 900},
    ("scratch-finetune", 1): {"lr": 0.003, "min_steps": 1000, "validation_score": 0.75, "best_step": 80},
    ("dino-finetune", 0): {"lr": 0.003, "min_steps": 300, "validation_score": 0.8, "best_step": 33},
    ("dino-finetune", 1): {"lr": 0.001, "min_steps": 1000, "validation_score": 0.8, "best_step": 66},
    ("dino-linear", 0): {"inverse_regularization": 0.01, "validation_score": None},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results") / "phantom"
    write_cohort(root / "cohort")
    folders = [write_arm(root / "classify", root / "cohort", arm, 1.0, seed=seed) for arm, seed in CHOSEN]
    write_tables(root, folders)
    return root


def test_what_was_chosen_is_counted_over_seeds(root: Path) -> None:
    assert search_table(read_results(root)) == {}  # of an earlier version
    for (arm, seed), chosen in CHOSEN.items():
        (path,) = (root / "classify" / arm).rglob(f"*seed{seed}/classifier.json")
        metadata = json.loads(path.read_text())
        path.write_text(json.dumps({**metadata, "chosen": chosen, "candidates": [chosen, chosen, chosen]}))
    table = search_table(read_results(root))
    assert table["heads"] == ["labels", "arm", "candidates", "chosen", "validation score"]
    assert [[cell.text for cell in row] for row in table["rows"]] == [
        ["100 %", "dino-finetune", "3", "learning rate 0.003, steps 300 (1), learning rate 0.001, steps 1000 (1)",
         "0.800"],
        ["100 %", "dino-linear", "3", "C 0.01", NOTHING],
        ["100 %", "scratch-finetune", "3", "learning rate 0.003, steps 1000 (2)", "0.700 to 0.750"],
    ]  # fmt: skip
