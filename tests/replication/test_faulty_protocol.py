"""The report's faulty protocol: best epoch on test scans, frozen probe of a fine-tuned backbone."""

import json

import pandas as pd
import pytest
import torch

from octdino.classify.labeled_scans import read_labeled
from octdino.config import AugmentSettings, ClassifySettings
from octdino.errors import StoppedEarly, UserError
from octdino.models.backbones import create_backbone
from octdino.training.checkpoint_reader import CheckpointError
from octdino.training.signals import Stopper
from replication.faulty_protocol import FaultyProtocol, faulty_protocol, sample_rows
from replication.settings import ProtocolSettings
from tests.small import TINY_RESNET, write_small_cohort

SETTINGS = ClassifySettings(
    augment=AugmentSettings(global_size=32, global_scale=(0.6, 1.0)), batch_size=16, lr=3e-3
)  # fmt: skip
PROTOCOL = ProtocolSettings(epochs=6, test_share=0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=40, exclusive=True)


def run(arm, store, out, protocol=PROTOCOL, settings=SETTINGS):
    where = {"store": store, "backbone": "b", "model": TINY_RESNET, "pretrained": None, "out": out}
    faulty_protocol(arm, settings, protocol, fraction=1.0, fold=0, seed=0, **where)
    return json.loads((out / "protocol.json").read_text()), pd.read_csv(out / "protocol.csv")


def test_the_best_of_all_epochs_on_half_of_the_test_scans(store, tmp_path):
    metadata, curve = run("scratch-finetune", store, tmp_path)
    assert curve["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (metadata["best"], metadata["last"]) == (curve["accuracy"].max(), curve["accuracy"].iloc[-1])
    test = read_labeled(store, 1.0, 0).rows("test")
    assert metadata["n_test"] == round(len(test) / 2)
    assert set(sample_rows(test, 0.5, seed=0)) < set(test)
    assert ((curve["accuracy"] * metadata["n_test"]).round(6) % 1 == 0).all()
    assert not metadata["contaminated"]
    assert not list(tmp_path.glob("state*"))


def test_the_frozen_probe_is_of_a_backbone_that_was_tuned_before(store, tmp_path):
    """A random frozen backbone is worse than one that the labels have shaped: the contamination."""
    clean = PROTOCOL.model_copy(update={"contaminated": False})
    honest, _ = run("scratch-linear", store, tmp_path / "a", clean)
    flattered, _ = run("scratch-linear", store, tmp_path / "b")
    assert not honest["contaminated"]
    assert flattered["contaminated"]
    assert flattered["best"] > honest["best"] + 0.1


def test_frozen_weights_stay_and_batch_norm_follows(store):
    data = read_labeled(store, 1.0, 0)
    backbone = create_backbone(TINY_RESNET, 1, 32)
    weights = {name: value.clone() for name, value in backbone.named_parameters()}
    means = backbone.bn1.running_mean.clone()
    frozen = FaultyProtocol(SETTINGS, 6, data, backbone, True, 0, test=data.rows("test"), frozen=True)
    head = frozen.network[1].weight.clone()
    frozen._take_step()
    frozen._take_step()
    assert all(torch.equal(value, weights[name]) for name, value in backbone.named_parameters())
    assert not torch.equal(backbone.bn1.running_mean, means)
    assert not torch.equal(frozen.network[1].weight, head)


@pytest.mark.parametrize("stops", [6, 40])  # in the tuning before, and in the probe (24 steps each)
def test_a_stopped_run_ends_where_an_undisturbed_one_ends(store, tmp_path, monkeypatch, stops):
    whole = run("scratch-linear", store, tmp_path / "whole")[1]
    asked = Stopper.asked
    calls = iter(range(10**6))
    monkeypatch.setattr(Stopper, "asked", lambda self: "test" if next(calls) == stops else None)
    with pytest.raises(StoppedEarly):
        run("scratch-linear", store, tmp_path / "parts")
    monkeypatch.setattr(Stopper, "asked", asked)
    pd.testing.assert_frame_equal(run("scratch-linear", store, tmp_path / "parts")[1], whole)


def test_users_mistakes_are_one_line(store, tmp_path):
    with pytest.raises(UserError, match=r"is not \{init\}-linear or \{init\}-finetune"):
        run("scratch-knn", store, tmp_path)
    several = write_small_cohort(tmp_path / "cohort")
    with pytest.raises(UserError, match="do not exclude each other"):
        run("scratch-linear", several, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5, 1, "0.5", None])
def test_a_checkpoint_whose_curve_holds_no_accuracy_is_refused(value):
    with pytest.raises(CheckpointError, match="curve is no list of numbers from 0 to 1"):
        FaultyProtocol.check(object.__new__(FaultyProtocol), {"curve": [0.5, value]})


@pytest.mark.parametrize("curve", [None, "text", [0.5, "x"], [0.5] * 9])
def test_a_checkpoint_of_another_form_is_passed_over_and_the_run_starts_again(
    store, tmp_path, monkeypatch, caplog, curve
):
    once = SETTINGS.model_copy(update={"precision": "float32"}), PROTOCOL.model_copy(update={"epochs": 4})
    whole = run("scratch-finetune", store, tmp_path / "whole", once[1], once[0])[1]
    calls = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(Stopper, "asked", lambda self: "test" if next(calls) == 2 else None)
        with pytest.raises(StoppedEarly):
            run("scratch-finetune", store, tmp_path / "parts", once[1], once[0])
    (path,) = (tmp_path / "parts" / "state").glob("step-*.pt")
    torch.save({**torch.load(path, weights_only=True), "curve": curve}, path)
    pd.testing.assert_frame_equal(run("scratch-finetune", store, tmp_path / "parts", once[1], once[0])[1], whole)
    assert f"{path}: " in caplog.text
