"""Trials of `octdino plan` on random scans: methods that need clinical values, eyes or visits take real steps."""

from pathlib import Path
from typing import Any

import pytest

from octdino.cli.planning.random_scans import random_manifest
from octdino.cli.planning.trial_process import trial_pretrain
from octdino.config import ImageSettings, load_config


@pytest.mark.parametrize(
    "variant",
    [
        {"method": "simclr", "positives": "eye"},
        {"method": "simclr", "positives": "eye", "positives_visits": 2},
        {"method": "dino", "positives": "eye", "positives_weeks": 0.5, "prototypes": 32},
        {"method": "supcon", "positives": ["eye", "cst"], "positives_visits": 1},
    ],
)
def test_methods_that_compare_visits_are_tried(variant: dict[str, Any], tmp_path: Path) -> None:
    values = {
        "models": {"tiny": {"timm": "test_resnet"}},
        "pretrain": {
            "backbones": ["tiny"], "methods": ["own"], "variants": {"own": variant}, "batch_size": 8,
            "augment": {"global_size": 32, "local_size": 16},
        },
        "classify": {"arms": []},
    }  # fmt: skip
    settings = load_config(values)
    found = trial_pretrain(
        {
            "steps": 1, "seconds": 5, "method": "own", "backbone": "tiny", "scans": 40,
            "image": ImageSettings(size=(32, 32)).model_dump(mode="json"),
            "model": settings.model("tiny").model_dump(mode="json"), "settings": settings.pretrain.needed("own"),
        },
        tmp_path,
    )  # fmt: skip
    assert found["step_seconds"][0] > 0


def test_random_scans_have_two_visits_per_eye() -> None:
    manifest = random_manifest(40)
    assert manifest.groupby("eye")["visit"].nunique().tolist() == [2] * 4
    assert manifest.groupby(["eye", "visit"]).size().tolist() == [5] * 8
