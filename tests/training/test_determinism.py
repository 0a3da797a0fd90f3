"""The setting `deterministic` sets torch's flags; results on a GPU are not tested here."""

import os

import pytest
import torch

from octdino.classify.train_arm import classify
from octdino.config import ClassifySettings, ModelSettings, PretrainSettings
from octdino.errors import UserError
from octdino.pretrain import pretrain
from octdino.training.determinism import set_determinism


@pytest.fixture(autouse=True)
def flags_as_before():
    yield
    set_determinism(False)
    torch.backends.cudnn.benchmark = False


def flags():
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


def test_flags_are_set_and_unset(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_determinism(False)
    assert flags() == (False, False, True)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    set_determinism(True)
    assert flags() == (True, True, False)
    assert torch.is_deterministic_algorithms_warn_only_enabled(), "an operation without one must not end a run"
    assert not torch.utils.deterministic.fill_uninitialized_memory, "it would cost time on a CPU"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.cuda.is_initialized()


def test_cublas_workspace_of_the_environment_is_kept(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_determinism(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("train", [pretrain, classify])
def test_determinism_is_set_before_anything_is_read(train, wanted, monkeypatch, tmp_path):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(not wanted)
    run = {"store": tmp_path / "none.h5", "backbone": "b", "model": ModelSettings(timm="test_vit")}
    run |= {"fold": 0, "seed": 0, "out": tmp_path / "out"}
    if train is pretrain:
        name, settings = "dino", PretrainSettings(methods=["dino"], deterministic=wanted)
    else:
        name, settings = "scratch-finetune", ClassifySettings(deterministic=wanted)
        run |= {"pretrained": None, "fraction": 1.0}
    with pytest.raises(UserError, match="no such"):
        train(name, settings, **run)
    assert flags() == (wanted, wanted, not wanted)


def test_deterministic_is_a_setting_of_every_arm_and_method():
    assert ClassifySettings().needed("scratch-finetune")["deterministic"] is True
    assert PretrainSettings().needed("dino")["deterministic"] is True
