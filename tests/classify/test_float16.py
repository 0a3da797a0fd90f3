"""Fine-tuning in float16: losses near those in float32; a step whose gradients overflow changes no weight."""

from pathlib import Path

import pytest
import torch

from octdino.classify.finetune import Finetune, schedule_of
from octdino.classify.labeled_scans import read_labeled
from octdino.models.backbones import create_backbone
from octdino.training import loss_scale
from tests.classify.test_classify import SETTINGS
from tests.small import TINY_RESNET, write_small_cohort


def finetune(store: Path, precision: str) -> Finetune:
    torch.manual_seed(0)
    settings = SETTINGS.model_copy(update={"precision": precision})
    schedule = schedule_of(settings, settings.candidates()[0], 72)
    backbone = create_backbone(TINY_RESNET, 1, 32)
    return Finetune(
        settings, read_labeled(store, 1.0, 0), backbone, lr=3e-3, schedule=schedule, pretrained=False, seed=0
    )


def test_losses_are_near_those_in_float32_and_overflows_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", 2.0**8)
    store = write_small_cohort(tmp_path, patients=40)
    half, full = (finetune(store, precision) for precision in ("float16", "float32"))
    for _ in range(half.schedule.check):
        half.train_step()
        full.train_step()
    assert half.history[0]["loss"] == pytest.approx(full.history[0]["loss"], rel=0.02)
    assert half.position()["loss_scale"]["scale"] == 2.0**8
    assert full.position()["loss_scale"] == {}

    before = [p.clone() for p in half.network.parameters()]
    half.loss_scale.restore({"scale": torch.tensor(2.0**100), "steps": torch.tensor(0)})
    half.train_step()
    assert all(torch.equal(p, b) for p, b in zip(half.network.parameters(), before, strict=True))
    assert half.position()["loss_scale"]["scale"] == 2.0**99

    resumed = finetune(store, "float16")
    resumed.check(half.position())
    resumed.restore(half.position())
    assert resumed.position()["loss_scale"] == half.position()["loss_scale"]
