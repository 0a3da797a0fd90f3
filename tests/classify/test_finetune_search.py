"""The search of fine-tuning: the chosen candidate is the one of the best validation score, trained as if alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from octdino.classify.finetune_search import FinetuneSearch
from octdino.classify.labeled_scans import read_labeled
from octdino.classify.linear import fit_linear
from octdino.config import ClassifySettings
from octdino.errors import StoppedEarly, UserError
from octdino.models.backbones import create_backbone
from octdino.models.input_batches import input_batches
from octdino.models.readouts import extract_features
from octdino.training.signals import Stopper
from tests.classify.test_classify import SETTINGS as ONE
from tests.classify.test_classify import run as classify
from tests.small import TINY_RESNET, write_small_backbone, write_small_cohort

SETTINGS = ONE.model_copy(update={"min_steps": [6, 12], "epochs": 2, "lr": [1e-3, 1e-2], "precision": "float32"})
WEIGHTS = "classifier.safetensors"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=24)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_backbone(tmp_path_factory.mktemp("pretrained"), TINY_RESNET)


def metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "classifier.json").read_text())
    return found


@pytest.mark.parametrize("arm", ["scratch-finetune", "dino-finetune"])
def test_the_best_candidate_is_what_it_is_alone(store: Path, pretrained: Path, tmp_path: Path, arm: str) -> None:
    start = None if arm.startswith("scratch") else pretrained
    classify(arm, store, tmp_path / "all", start, settings=SETTINGS)
    found = metadata(tmp_path / "all")
    tried = [(each["lr"], each["min_steps"]) for each in found["candidates"]]
    assert tried == [(1e-3, 6), (1e-3, 12), (1e-2, 6), (1e-2, 12)]
    best = max(found["candidates"], key=lambda each: each["validation_score"])
    assert found["chosen"] == best
    alone = SETTINGS.model_copy(update={"lr": [best["lr"]], "min_steps": [best["min_steps"]]})
    classify(arm, store, tmp_path / "one", start, settings=alone)
    assert (tmp_path / "all" / WEIGHTS).read_bytes() == (tmp_path / "one" / WEIGHTS).read_bytes()


def test_a_candidate_that_diverges_is_passed_over(store: Path, tmp_path: Path) -> None:
    classify("scratch-finetune", store, tmp_path, settings=SETTINGS.model_copy(update={"lr": [1e30, 1e-3]}))
    scores = [each["validation_score"] for each in metadata(tmp_path)["candidates"]]
    assert scores[:2] == [None, None]
    assert None not in scores[2:]
    assert metadata(tmp_path)["chosen"]["lr"] == 1e-3


def test_when_all_diverge_it_is_one_line(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"classify\.lr: the network's outputs are not finite: it diverged"):
        classify("scratch-finetune", store, tmp_path, settings=SETTINGS.model_copy(update={"lr": [1e30]}))


@pytest.mark.parametrize("step", [2, 6, 7, 20])
def test_a_search_resumes_in_any_candidate(
    store: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    classify("dino-finetune", store, tmp_path / "whole", pretrained, settings=SETTINGS)
    calls = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(Stopper, "asked", lambda self: "test" if next(calls) == step else None)
        with pytest.raises(StoppedEarly):
            classify("dino-finetune", store, tmp_path / "parts", pretrained, settings=SETTINGS)
    classify("dino-finetune", store, tmp_path / "parts", pretrained, settings=SETTINGS)
    assert metadata(tmp_path / "parts") == metadata(tmp_path / "whole")
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def first_logits(store: Path, settings: ClassifySettings) -> np.ndarray:
    """Logits of the validation scans before the first step."""
    torch.manual_seed(0)
    data = read_labeled(store, 1.0, 0)
    search = FinetuneSearch(settings, data, create_backbone(TINY_RESNET, 1, 32), pretrained=True, seed=0)
    return search.tuned.logits(data.rows("val"))


def test_the_first_head_on_pretrained_weights_is_the_linear_probe(store: Path) -> None:
    """LP-FT: fine-tuning begins where the linear probe ends."""
    data = read_labeled(store, 1.0, 0)
    torch.manual_seed(0)
    backbone = create_backbone(TINY_RESNET, 1, 32)
    train, val = (
        extract_features(
            backbone, input_batches(data.images, data.mean, data.std, 32, torch.device("cpu"), data.rows(part))
        ).double().numpy()
        for part in ("train", "val")
    )  # fmt: skip
    truth = data.truth[data.rows("train")]
    (weight, bias), _ = fit_linear(train, truth, val, data.truth[data.rows("val")], SETTINGS)
    np.testing.assert_allclose(first_logits(store, SETTINGS), val @ weight.T + bias, rtol=1e-3, atol=1e-3)
    random = first_logits(store, SETTINGS.model_copy(update={"first_head": "random"}))
    assert not np.allclose(random, val @ weight.T + bias, atol=0.1)


def test_a_layer_decay_slows_the_stem_of_a_pretrained_backbone_and_not_of_scratch(
    store: Path, pretrained: Path, tmp_path: Path
) -> None:
    """The stem, five layers below the classifier, has less than a millionth of its learning rate."""
    slow = SETTINGS.model_copy(update={"lr": [1e-3], "min_steps": [6], "layer_decay": 0.05})
    classify("dino-finetune", store, tmp_path / "dino", pretrained, settings=slow)
    classify("scratch-finetune", store, tmp_path / "scratch", settings=slow)
    classify("scratch-finetune", store, tmp_path / "plain", settings=slow.model_copy(update={"layer_decay": 1.0}))
    first = load_file(pretrained / "backbone.safetensors")
    tuned = load_file(tmp_path / "dino" / WEIGHTS)
    moved = {
        layer: float((tuned[f"0.{layer}.weight"] - first[f"{layer}.weight"]).abs().max())
        for layer in ("conv1", "layer4.0.conv2")
    }
    assert moved["conv1"] < 1e-7
    assert moved["layer4.0.conv2"] > 1e-5
    assert (tmp_path / "scratch" / WEIGHTS).read_bytes() == (tmp_path / "plain" / WEIGHTS).read_bytes()
