"""Pretraining and fine-tuning in float16: losses near those in float32, a loss scale that adapts and is resumed."""

import numpy as np
import pandas as pd
import pytest
import torch

from octdino.config import AugmentSettings
from octdino.errors import StoppedEarly
from octdino.pretrain import pretrain
from octdino.pretrain.trainer import Trainer
from octdino.training import loss_scale, throughput
from octdino.training.loss_scale import LossScale
from tests.pretrain.small_runs import NO_DROP_PATH, PAIRS, TIMES, run, settings, stop_at, weights

FLOAT16 = settings(precision="float16", augment=AugmentSettings(global_size=32, local_views=0))
SHORT = [("dino", "resnet"), ("dinov2", "vit"), ("vicreg", "resnet")]  # CPUs emulate float16


@pytest.fixture(autouse=True)
def small_first_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing overflows by itself from here on; from 2**16 the first steps of a run do."""
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", 2.0**8)
    monkeypatch.setattr(throughput, "matmul_rate", lambda *_: 1e9)  # seconds where float16 is emulated


def overflow_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the gradients of these steps infinite, the loss stays finite."""
    forward_backward = Trainer.forward_backward

    def overflowing(self, images=None):
        found = forward_backward(self, images)
        if self.step in steps and images is None:
            next(p for p in self.method.trained.parameters() if p.grad is not None).grad.fill_(torch.inf)
        return found

    monkeypatch.setattr(Trainer, "forward_backward", overflowing)


@pytest.mark.parametrize(
    ("name", "model"), [pair if pair in SHORT else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS]
)
def test_losses_are_near_those_in_float32(store, tmp_path, name, model):
    for precision in ("float16", "float32"):
        run(store, tmp_path / precision, name, model, settings(precision=precision, epochs=1))
    half, full = (pd.read_csv(tmp_path / precision / "history.csv") for precision in ("float16", "float32"))
    assert half["skipped"].item() == 0
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=0.02)
    assert "loss_scale" not in full


def test_overflow_halves_the_scale_and_is_not_counted_as_a_bad_step(store, tmp_path, monkeypatch):
    overflow_at(monkeypatch, 1, 2)
    run(store, tmp_path, settings=FLOAT16.model_copy(update={"max_skipped": 0}))
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["loss_scale"].tolist() == [2.0**6, 2.0**6]
    assert history["skipped"].tolist() == [2, 0]
    assert not (tmp_path / "skipped.csv").exists()


def test_resumed_run_has_the_scale_and_the_weights_of_a_whole_one(store, tmp_path, monkeypatch):
    overflow_at(monkeypatch, 1)
    run(store, tmp_path / "whole", settings=FLOAT16)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", settings=FLOAT16)
    run(store, tmp_path / "parts", settings=FLOAT16)
    histories = [pd.read_csv(tmp_path / part / "history.csv").drop(columns=list(TIMES)) for part in ("whole", "parts")]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert histories[1]["loss_scale"].tolist() == [2.0**7, 2.0**7]
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


def test_gradients_do_not_depend_on_the_scale_of_chunks(store, tmp_path, monkeypatch):
    """GradCache passes the gradient of scaled features through the backbone: the scale is divided out once."""
    for name, chunks in (("one", 1), ("chunks", 2)):
        changed = FLOAT16.model_copy(update={"epochs": 1, "grad_cache_chunks": chunks})
        model = NO_DROP_PATH["vit"]
        pretrain("simclr", changed, store=store, backbone="b", model=model, fold=0, seed=0, out=tmp_path / name)
    one, chunks = (pd.read_csv(tmp_path / part / "history.csv")["loss"].item() for part in ("one", "chunks"))
    assert chunks == pytest.approx(one, rel=2e-3)


def test_tiny_gradients_survive_by_the_scale():
    """2**-24 is the smallest number of float16; a gradient below it becomes zero without the scale."""
    weight = torch.nn.Parameter(torch.full((4, 4), 2.0**-4))
    scale = LossScale(torch.device("cpu"), "float16")
    for scaled, alive in ((False, False), (True, True)):
        weight.grad = None
        with torch.autocast("cpu", torch.float16):
            output = torch.ones(1, 4) @ weight
        loss = output.float().sum() * 2.0**-26
        torch.autograd.backward(scale(loss) if scaled else loss)
        assert weight.grad is not None
        if scaled:
            scale.unscale([weight])
        assert bool((weight.grad == 2.0**-26).all()) == alive
