"""What the loop does beside stepping: refused steps, checkpoints that stay, the best epoch, extensions, starts."""

import json
from itertools import pairwise

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from octdino.config import ModelSettings
from octdino.config.methods import DinoSettings
from octdino.errors import StoppedEarly, UserError
from octdino.models import create_backbone
from octdino.models.initial_weights import Start
from octdino.pretrain import trainer as loop
from octdino.pretrain.tensorboard import write_board
from octdino.pretrain.trainer import Run
from tests.pretrain.test_pretraining import MODELS, SETTINGS, run, stop_at
from tests.small import write_small_cohort

STEPS = 4  # an epoch: 72 training scans in batches of 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_small_cohort(tmp_path_factory.mktemp("cohort"))


def settings(**changes):
    return SETTINGS.model_copy(update=changes)


def weights(folder):
    return (folder / "backbone.safetensors").read_bytes()


def card(folder):
    return json.loads((folder / "backbone.json").read_text())


def spoil(monkeypatch, *steps):
    """Make the loss of these steps NaN."""
    make_batch = Run.make_batch

    def spoiling(self, rows):
        batch = make_batch(self, rows)
        if self.step in steps:
            batch.views[0][0, 0] = torch.nan
        return batch

    monkeypatch.setattr(Run, "make_batch", spoiling)


def test_a_step_without_a_finite_loss_is_skipped_counted_and_its_scans_saved(store, tmp_path, monkeypatch):
    spoil(monkeypatch, 2, 5)
    run(store, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["skipped"].tolist() == [1, 1]
    assert history["loss"].notna().all()
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "backbone.safetensors").values())
    assert card(tmp_path)["skipped_steps"] == 2
    table = pd.read_csv(tmp_path / "skipped.csv")
    assert table["step"].tolist() == [2] * 16 + [5] * 16
    assert set(table["scan_id"]) <= set(pd.read_csv(store.with_name("manifest.csv"))["scan_id"])


def test_a_skipped_step_changes_no_weight(store, tmp_path, monkeypatch):
    positions = []
    take_step = Run.take_step

    def watching(self):
        positions.append({key: value.clone() for key, value in self.method.state_dict().items()})
        take_step(self)

    spoil(monkeypatch, 2)
    monkeypatch.setattr(Run, "take_step", watching)
    run(store, tmp_path, settings=settings(epochs=1))
    same = [all(torch.equal(a[key], b[key]) for key in a) for a, b in pairwise(positions)]
    assert same == [False, False, True]


def test_too_many_skipped_steps_end_the_run_with_one_clear_line(store, tmp_path, monkeypatch):
    spoil(monkeypatch, *range(100))
    with pytest.raises(UserError, match=r"skipped\.csv: 4 steps had no finite loss.* max_skipped \(2\)"):
        run(store, tmp_path, settings=settings(max_skipped=2))
    assert len(pd.read_csv(tmp_path / "skipped.csv")) == STEPS * 16, (
        "the scans of the epoch at whose end somebody looked"
    )
    assert not (tmp_path / "backbone.safetensors").exists()


@pytest.mark.parametrize("export", ["last", "best"])
def test_an_epoch_of_refused_steps_is_a_gap_in_the_history(store, tmp_path, monkeypatch, export):
    spoil(monkeypatch, *range(STEPS))
    run(store, tmp_path, settings=settings(export=export))
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["skipped"].tolist() == [STEPS, 0]
    assert history["loss"].isna().tolist() == [True, False]


def test_a_run_of_refused_steps_only_ends_with_one_clear_line(store, tmp_path, monkeypatch):
    spoil(monkeypatch, *range(100))
    with pytest.raises(UserError, match=rf"skipped\.csv: all {2 * STEPS} steps had no finite loss"):
        run(store, tmp_path)
    assert not (tmp_path / "backbone.safetensors").exists()


def test_the_latest_checkpoints_stay_and_a_broken_one_is_passed_over(store, tmp_path, monkeypatch):
    kept = settings(checkpoint_seconds=0, keep_checkpoints=3)
    run(store, tmp_path / "whole", settings=kept)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", settings=kept)
    paths = sorted((tmp_path / "parts/state").glob("step-*.pt"))
    assert [path.name for path in paths] == [f"step-{step:09d}.pt" for step in (4, 5, 6)]
    paths[-1].write_bytes(paths[-1].read_bytes()[:1000])
    run(store, tmp_path / "parts", settings=kept)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_the_best_epoch_by_neighbours_is_handed_on(store, tmp_path, monkeypatch):
    scores = iter([0.6, 0.9, 0.7])
    seen = []

    def scoring(backbone, *_):
        seen.append({key: value.clone() for key, value in backbone.state_dict().items()})
        return {"knn_auroc": next(scores)}

    monkeypatch.setattr(loop, "watch", scoring)
    run(store, tmp_path, settings=settings(epochs=3, export="best"))
    exported = load_file(tmp_path / "backbone.safetensors")
    assert card(tmp_path)["exported_epoch"] == 2
    assert all(torch.equal(exported[key], value) for key, value in seen[1].items())
    assert any(not torch.equal(exported[key], value) for key, value in seen[2].items())


def test_the_best_epoch_survives_a_stop(store, tmp_path, monkeypatch):
    chosen = settings(epochs=3, export="best")
    run(store, tmp_path / "whole", settings=chosen)
    with monkeypatch.context() as patch:
        stop_at(patch, 2 * STEPS + 1)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", settings=chosen)
    run(store, tmp_path / "parts", settings=chosen)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert card(tmp_path / "parts")["exported_epoch"] == card(tmp_path / "whole")["exported_epoch"]


def test_the_best_epoch_needs_someone_to_choose_it(tmp_path):
    store = write_small_cohort(tmp_path / "cohort")
    for name in ("manifest.csv", "splits.csv"):
        path = store.with_name(name)
        table = pd.read_csv(path)
        path.write_text(table.assign(split=table["split"].replace("val", "train")).to_csv(index=False))
    with pytest.raises(UserError, match="export: best needs a label that validation"):
        run(store, tmp_path / "run", settings=settings(export="best"))


def test_a_finished_run_goes_on_for_more_epochs_only_when_asked(store, tmp_path):
    for name in ("extended", "anew"):
        run(store, tmp_path / name)
    two = weights(tmp_path / "extended")
    run(store, tmp_path / "extended", settings=settings(epochs=3, extend=True))
    history = pd.read_csv(tmp_path / "extended/history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["lr"].iloc[2] < history["lr"].iloc[0], "the schedule goes on over the new length"
    assert card(tmp_path / "extended")["epochs"] == [2, 3]
    run(store, tmp_path / "anew", settings=settings(epochs=3))
    run(store, tmp_path / "three", settings=settings(epochs=3))
    assert weights(tmp_path / "anew") == weights(tmp_path / "three")
    assert weights(tmp_path / "extended") not in (two, weights(tmp_path / "three"))


def test_a_finished_run_that_is_asked_for_again_starts_anew(store, tmp_path):
    run(store, tmp_path)
    first = weights(tmp_path)
    run(store, tmp_path, settings=settings(extend=True))
    assert weights(tmp_path) == first
    assert card(tmp_path)["epochs"] == [2]


def test_an_extension_that_is_stopped_goes_on_only_when_asked(store, tmp_path, monkeypatch):
    run(store, tmp_path / "parts")
    with monkeypatch.context() as patch:
        stop_at(patch, 2 * STEPS + 1)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", settings=settings(epochs=3, extend=True))
    run(store, tmp_path / "parts", settings=settings(epochs=3))
    run(store, tmp_path / "three", settings=settings(epochs=3))
    assert weights(tmp_path / "parts") == weights(tmp_path / "three")


def test_an_extension_that_is_stopped_goes_on(store, tmp_path, monkeypatch):
    longer = settings(epochs=4, extend=True)
    for name in ("whole", "parts"):
        run(store, tmp_path / name)
    run(store, tmp_path / "whole", settings=longer)
    with monkeypatch.context() as patch:
        stop_at(patch, 3 * STEPS + 1)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", settings=longer)
    run(store, tmp_path / "parts", settings=longer)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert card(tmp_path / "parts")["epochs"] == [2, 4]


def starting_from(init):
    return settings(variants={**SETTINGS.variants, "dino": {**SETTINGS.variants["dino"], "init": init}}, epochs=1)


@pytest.mark.parametrize("model", MODELS)
def test_a_run_starts_from_an_earlier_one(store, tmp_path, monkeypatch, model):
    run(store, tmp_path / "b-fold0-seed0", "simclr", model)
    earlier = load_file(tmp_path / "b-fold0-seed0/backbone.safetensors")
    first = {}
    train = Run.train

    def watching(self, stopper):
        first.update({key: value.clone() for key, value in self.method.exported.state_dict().items()})
        train(self, stopper)

    monkeypatch.setattr(Run, "train", watching)
    chosen = starting_from(str(tmp_path / "{backbone}-fold{fold}-seed{seed}"))
    run(store, tmp_path / "next", model=model, settings=chosen)
    assert first.keys() == earlier.keys()
    assert all(torch.equal(first[key], value) for key, value in earlier.items())
    origin = card(tmp_path / "next")["start"]
    assert origin["name"] == "simclr"
    assert origin["from"] == str(tmp_path / "b-fold0-seed0")
    assert len(origin["sha256"]) == 64


def test_a_vit_that_saw_another_size_starts_a_run(store, tmp_path):
    run(store, tmp_path / "small", "simclr", "vit", settings(epochs=1))
    larger = starting_from(str(tmp_path / "small"))
    larger = larger.model_copy(update={"augment": larger.augment.model_copy(update={"global_size": 48})})
    run(store, tmp_path / "large", model="vit", settings=larger)
    shape = load_file(tmp_path / "large/backbone.safetensors")["pos_embed"].shape
    assert shape[1] > load_file(tmp_path / "small/backbone.safetensors")["pos_embed"].shape[1]


def test_a_run_of_another_model_is_no_start(store, tmp_path):
    run(store, tmp_path / "vit", model="vit", settings=settings(epochs=1))
    with pytest.raises(UserError, match=r"vit/backbone\.json: is a test_vit .*; b is a resnet18"):
        run(store, tmp_path / "out", settings=starting_from(str(tmp_path / "vit")))
    with pytest.raises(UserError, match=r"init: the placeholders are \{backbone\}"):
        run(store, tmp_path / "out", settings=starting_from("{nobody}"))


def test_weights_that_saw_the_test_patients_are_refused(store, tmp_path):
    run(store, tmp_path / "first", "simclr", settings=settings(epochs=1), fold=None)
    chosen = starting_from(str(tmp_path / "first"))
    with pytest.raises(UserError, match=r"first: was trained on all of small, fold None; fold 0 has test patients"):
        run(store, tmp_path / "out", settings=chosen)
    run(store, tmp_path / "out", settings=chosen, fold=None)  # this run sees them itself
    path = tmp_path / "first/backbone.json"
    values = {**json.loads(path.read_text()), "scope": "train_patients", "fold": 1}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="fold 1; fold 0 has test patients"):
        run(store, tmp_path / "out", settings=chosen)
    path.write_text(json.dumps({**values, "cohort": "another", "kind": "folder", "source": "other scans"}))
    run(store, tmp_path / "out", settings=chosen)  # other patients


def test_views_that_patches_do_not_divide_are_one_clear_line(store, tmp_path):
    for name in ("global_size", "local_size"):
        augment = SETTINGS.augment.model_copy(update={name: 20})
        with pytest.raises(UserError, match=rf"augment\.{name}: 20 px; test_vit takes multiples of 8"):
            run(store, tmp_path, model="vit", settings=settings(augment=augment))


def test_diverged_weights_are_counted_not_a_crash(store, tmp_path, monkeypatch):
    take_step = Run.take_step

    def diverging(self):
        if self.step == 1:
            with torch.no_grad():
                next(self.method.trained.parameters()).fill_(torch.inf)
        take_step(self)

    monkeypatch.setattr(Run, "take_step", diverging)
    with pytest.raises(UserError, match="7 steps had no finite loss"):
        run(store, tmp_path, settings=settings(max_skipped=4))


def test_what_an_earlier_run_left_beside_the_weights_goes(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spoil(patch, 2)
        run(store, tmp_path)
    assert (tmp_path / "skipped.csv").exists()
    run(store, tmp_path, settings=settings(batch_size=12))
    assert not (tmp_path / "skipped.csv").exists()


def test_a_run_starts_from_imagenet_weights(store, tmp_path):
    plain = MODELS["resnet"]
    network = create_backbone(plain, 3, 32)
    save_file(network.state_dict(), tmp_path / "imagenet.safetensors")
    model = ModelSettings(timm=plain.timm, args=plain.args, weights=tmp_path / "imagenet.safetensors")
    built = Start(DinoSettings(init="imagenet"), model, "b", 0, 0).backbone(1, 32)
    expected = network.state_dict()["conv1.weight"].sum(1, keepdim=True)  # grey: the sum of the colours' filters
    torch.testing.assert_close(built.state_dict()["conv1.weight"], expected)
    assert torch.equal(built.state_dict()["layer1.0.conv1.weight"], network.state_dict()["layer1.0.conv1.weight"])


def test_other_first_weights_are_another_run(store, tmp_path, monkeypatch):
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


def test_sizes_decide_what_was_left_to_them(store, tmp_path):
    run(store, tmp_path, settings=settings(epochs=1))
    chosen = card(tmp_path)["method"]
    assert (chosen["prototypes"], chosen["teacher_temp"], chosen["momentum"]) == (32, 0.02, 0.99)


def test_utilisation_is_a_share(store, tmp_path):
    run(store, tmp_path)
    used = pd.read_csv(tmp_path / "history.csv")["utilisation"]
    assert ((used > 0) & (used < 1)).all()


def test_tensorboard_shows_every_epoch_once(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(store, tmp_path, settings=settings(tensorboard=True))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    history = pd.read_csv(tmp_path / "history.csv")
    events = board.Scalars("loss")
    assert [event.step for event in events] == history["step"].tolist()
    assert [event.value for event in events] == pytest.approx(history["loss"].tolist(), rel=1e-6)


def test_tensorboard_missing_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(UserError, match="tensorboard: its package is missing"):
        write_board(tmp_path, [])
