"""Cross-validation in the workflow: each fold's arms start from the pretraining that has not seen its test patients."""

import re
from pathlib import Path

import pytest

from octdino.config import load_config
from octdino.errors import UserError
from tests.workflow.conftest import ROOT, Workflow


def test_arms_start_from_their_own_folds_pretraining(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    flow.configure(
        {
            "cohort": {"split": {"protocol": "crossval", "folds": 3}},
            "pretrain": {"methods": ["dino"]},
            "classify": {"arms": ["scratch-finetune", "dino-linear"], "fractions": [1.0]},
        }
    )
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    calls = flow.calls()
    arms = [call for call in calls if call.startswith("classify dino-linear")]
    assert len(arms) == 3
    for call in arms:
        fold = re.search(r"--fold (\d)", call)
        assert fold
        assert f"fold{fold[1]}-seed0 " in call[call.index("--pretrained") :]
    assert sum(call.startswith("clinical") for call in calls) == 3
    (evaluated,) = (call for call in calls if call.startswith("evaluate"))
    assert evaluated.count("predictions.csv") == 9
    assert flow.rules("--config", "pretrain={scope: all}")["pretrain"] == 1  # one that has seen all serves every fold


def test_the_review_preset_is_folds_times_seeds(tmp_path: Path) -> None:
    jobs = Workflow(tmp_path, stub=True).rules("--configfile", str(ROOT / "config/review.yaml"))
    assert (jobs["pretrain"], jobs["classify"], jobs["clinical"], jobs["evaluate"]) == (45, 225, 45, 1)


def test_protocols_that_cannot_be() -> None:
    with pytest.raises(UserError, match="published2 lists patients of olives, not of phantom"):
        load_config({"cohort": {"split": {"protocol": "published2"}}})
    with pytest.raises(UserError, match="file: holds one division"):
        load_config({"cohort": {"split": {"protocol": "crossval", "file": "splits.csv"}}})
