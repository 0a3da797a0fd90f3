"""Fine-tuning of published weights: what a checkpoint's fingerprint contains of them, so that it is resumed or not."""

import json
from pathlib import Path
from typing import Any

import pytest

from octdino.classify import finetune_arm, train_arm
from octdino.config import ModelSettings
from tests.classify.test_classify import SETTINGS
from tests.models.published import ARGS, SIDE, random_vit, write_huggingface
from tests.models.test_published_weights import CONFIG, huggingface_vit
from tests.small import write_small_cohort


class RunBeginsError(Exception):
    """The training would begin."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_huggingface(tmp_path / "own", huggingface_vit(random_vit(0), "", "vit"), CONFIG)


def fingerprint(
    arm: str, model: dict[str, Any], store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The fingerprint with which the fine-tuning of an arm would begin."""
    found: dict[str, Any] = {}

    def begin(_: Path, given: dict[str, Any], __: float) -> None:
        found.update(json.loads(json.dumps(given)))
        raise RunBeginsError

    monkeypatch.setattr(finetune_arm, "RunState", begin)
    entry = {"timm": "vit_tiny_patch16_224", "args": ARGS, "layout": "huggingface", "weights": folder, **model}
    with pytest.raises(RunBeginsError):
        train_arm.classify(
            arm, SETTINGS, store=store, backbone="own", model=ModelSettings(**entry), fraction=1.0, fold=0, seed=0,
            out=folder.with_name("out"),
        )  # fmt: skip
    return found


def test_another_preprocessing_is_another_run(store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = (store, folder, monkeypatch)
    values = {"size": SIDE, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    found = []
    for change in ({}, {"size": 2 * SIDE}, {"image_mean": [0.4, 0.4, 0.4]}, {"do_normalize": False}):
        (folder / "preprocessor_config.json").write_text(json.dumps(values | change))
        found.append(fingerprint("own-finetune", {}, *where))
    assert found[0]["input"] == [SIDE, [0.5], [0.5]]
    assert len({json.dumps(each) for each in found}) == 4


def test_settings_that_an_arm_does_not_use_leave_its_run_as_it_is(
    store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = (store, folder, monkeypatch)
    changed = {"input_size": 64, "mean": [0.1], "std": [0.1], "license": "CC0"}
    plain = fingerprint("scratch-finetune", {}, *where)
    assert fingerprint("scratch-finetune", changed, *where) == plain
    assert "input" not in plain  # as in runs of earlier versions
    assert fingerprint("own-finetune", changed, *where) != fingerprint("own-finetune", {"input_size": 64}, *where)
