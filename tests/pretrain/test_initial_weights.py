"""Initial weights of a run: an earlier run's, ImageNet's; never ones that were trained on test patients."""

import json
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file

from octdino.config import ModelSettings
from octdino.config.methods import DinoSettings
from octdino.errors import StoppedEarly, UserError
from octdino.models.backbones import create_backbone
from octdino.models.initial_weights import Start
from octdino.pretrain.trainer import Trainer
from tests.pretrain.small_runs import MODELS, SETTINGS, metadata, run, settings, starting_from, stop_at, weights


@pytest.mark.parametrize("model", MODELS)
def test_run_starts_from_weights_of_earlier_run(store, tmp_path, monkeypatch, model):
    run(store, tmp_path / "b-fold0-seed0", "simclr", model)
    earlier = load_file(tmp_path / "b-fold0-seed0/backbone.safetensors")
    first = {}
    train = Trainer.train

    def watching(self, stopper, monitor):
        first.update({key: value.clone() for key, value in self.method.exported.state_dict().items()})
        train(self, stopper, monitor)

    monkeypatch.setattr(Trainer, "train", watching)
    chosen = starting_from(str(tmp_path / "{backbone}-fold{fold}-seed{seed}"))
    run(store, tmp_path / "next", model=model, settings=chosen)
    assert first.keys() == earlier.keys()
    assert all(torch.equal(first[key], value) for key, value in earlier.items())
    origin = metadata(tmp_path / "next")["start"]
    assert origin["name"] == "simclr"
    assert origin["from"] == str(tmp_path / "b-fold0-seed0")
    assert len(origin["sha256"]) == 64


def test_vit_of_another_image_size_is_resized_at_start(store, tmp_path):
    run(store, tmp_path / "small", "simclr", "vit", settings(epochs=1))
    larger = starting_from(str(tmp_path / "small"))
    larger = larger.model_copy(update={"augment": larger.augment.model_copy(update={"global_size": 48})})
    run(store, tmp_path / "large", model="vit", settings=larger)
    shape = load_file(tmp_path / "large/backbone.safetensors")["pos_embed"].shape
    assert shape[1] > load_file(tmp_path / "small/backbone.safetensors")["pos_embed"].shape[1]


def test_start_from_run_of_another_model_raises_user_error(store, tmp_path):
    run(store, tmp_path / "vit", model="vit", settings=settings(epochs=1))
    with pytest.raises(UserError, match=r"vit/backbone\.json: is a test_vit .*; b is a resnet18"):
        run(store, tmp_path / "out", settings=starting_from(str(tmp_path / "vit")))
    with pytest.raises(UserError, match=r"init: the placeholders are \{backbone\}"):
        run(store, tmp_path / "out", settings=starting_from("{nobody}"))


def test_start_from_weights_trained_on_test_patients_raises_user_error(store, tmp_path):
    run(store, tmp_path / "first", "simclr", settings=settings(epochs=1), fold=None)
    chosen = starting_from(str(tmp_path / "first"))
    with pytest.raises(UserError, match=r"trained on all of small, fold None, which includes test scans of fold 0"):
        run(store, tmp_path / "out", settings=chosen)
    run(store, tmp_path / "out", settings=chosen, fold=None)  # this run sees them itself
    path = tmp_path / "first/backbone.json"
    values = {**json.loads(path.read_text()), "scope": "train_patients", "fold": 1}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="fold 1, which includes test scans of fold 0"):
        run(store, tmp_path / "out", settings=chosen)
    path.write_text(json.dumps({**values, "cohort": "another", "kind": "folder", "source": "other scans"}))
    run(store, tmp_path / "out", settings=chosen)  # other patients


def test_view_size_that_is_no_multiple_of_patch_size_raises_user_error(store, tmp_path):
    for name in ("global_size", "local_size"):
        augment = SETTINGS.augment.model_copy(update={name: 20})
        with pytest.raises(UserError, match=rf"augment\.{name}: 20 px; test_vit takes multiples of 8"):
            run(store, tmp_path, model="vit", settings=settings(augment=augment))


def test_start_from_imagenet_sums_filters_over_colors(store, tmp_path):
    plain = MODELS["resnet"]
    network = create_backbone(plain, 3, 32)
    save_file(network.state_dict(), tmp_path / "imagenet.safetensors")
    model = ModelSettings(timm=plain.timm, args=plain.args, weights=tmp_path / "imagenet.safetensors")
    built = Start(DinoSettings(init="imagenet"), model, "b", 0, 0).backbone(1, 32)
    expected = network.state_dict()["conv1.weight"].sum(1, keepdim=True)  # gray: the sum over colors
    torch.testing.assert_close(built.state_dict()["conv1.weight"], expected)
    assert torch.equal(built.state_dict()["layer1.0.conv1.weight"], network.state_dict()["layer1.0.conv1.weight"])


def test_run_with_other_initial_weights_is_not_resumed(store, tmp_path, monkeypatch):
    for seed in (0, 1):
        run(store, tmp_path / f"first{seed}", "simclr", seed=seed, settings=settings(epochs=1))
    (tmp_path / "first").symlink_to(tmp_path / "first0")
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "run", settings=starting_from(str(tmp_path / "first")))
    (tmp_path / "first").unlink()
    (tmp_path / "first").symlink_to(tmp_path / "first1")
    run(store, tmp_path / "run", settings=starting_from(str(tmp_path / "first")))
    run(store, tmp_path / "fresh", settings=starting_from(str(tmp_path / "first1")))
    assert weights(tmp_path / "run") == weights(tmp_path / "fresh")


def test_unset_sizes_are_resolved_by_cohort_size(store, tmp_path):
    run(store, tmp_path, settings=settings(epochs=1))
    chosen = metadata(tmp_path)["method"]
    assert (chosen["prototypes"], chosen["teacher_temp"], chosen["momentum"]) == (32, 0.02, 0.99)


@pytest.mark.parametrize(
    ("cohort", "kind", "source", "refused"),
    [
        ("a", "folder", "1", True),  # the same cohort
        ("b", "folder", "1", True),  # the same scans under another title
        ("b", "folder", "2", False),  # somebody else's folder
        ("b", "phantom", "2", False),
    ],
)
def test_start_compares_cohorts_by_title_and_by_scans(cohort, kind, source, refused):
    start = Start(SETTINGS.variant("dino"), MODELS["resnet"], "b", 0, 0)
    start.origin = {"from": "run", "cohort": "a", "kind": "folder", "source": "1", "scope": "all", "fold": None}
    with pytest.raises(UserError, match="was trained on all of a, ") if refused else nullcontext():
        start.check_cohort(cohort, kind, source)


def test_published_cohort_under_another_title_is_the_same_cohort():
    start = Start(SETTINGS.variant("dino"), MODELS["resnet"], "b", 0, 0)
    start.origin = {"from": "run", "cohort": "olives", "kind": "olives", "source": "1", "scope": "all", "fold": None}
    with pytest.raises(UserError, match="was trained on all of olives, "):
        start.check_cohort("olives-published", "olives", "2")
