"""A run ends the same however often it was stopped, and sees only whom it may see."""

import json
import os
import signal
from contextlib import nullcontext

import pandas as pd
import pytest
import torch

from octdino.config import METHODS, AugmentSettings, ModelSettings, PretrainSettings
from octdino.data.cohort_reader import read_cohort
from octdino.errors import StoppedEarly, UserError
from octdino.models.initial_weights import Start
from octdino.pretrain import pretrain
from octdino.pretrain.pretraining_data import batch_order, read_data
from octdino.pretrain.trainer import Run
from tests.small import write_small_cohort

MODELS = {
    "resnet": ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 16]}),
    "vit": ModelSettings(timm="test_vit", args={"patch_size": 8, "drop_path_rate": 0.1}),
}
SETTINGS = PretrainSettings(
    epochs=2,
    batch_size=16,
    augment=AugmentSettings(global_size=32, local_size=16, local_views=2),
    methods=list(METHODS),
    variants={"dino": {"prototypes": 32}},
)

PRECISIONS = ("float32", "bfloat16")
TIMES = ("images_per_second", "utilisation", "data_wait", "augmentation")
PAIRS = [(name, model) for name in METHODS for model in MODELS if (name, model) != ("dinov2", "resnet")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_small_cohort(tmp_path_factory.mktemp("cohort"))


def run(store, out, name="dino", model="resnet", settings=SETTINGS, **changes):
    arguments = {"store": store, "backbone": "b", "model": MODELS[model], "fold": 0, "seed": 0, "out": out, **changes}
    pretrain(name, settings, **arguments)


def stop_at(monkeypatch, step):
    """Send this process SIGTERM in the middle of a step, once."""
    take_step = Run.take_step

    def stopping(self):
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        take_step(self)

    monkeypatch.setattr(Run, "take_step", stopping)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_a_stopped_and_resumed_run_is_bit_for_bit_the_undisturbed_one(
    store, tmp_path, monkeypatch, name, model, precision
):
    settings = SETTINGS.model_copy(update={"precision": precision})
    run(store, tmp_path / "whole", name, model, settings)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)  # inside the second epoch
        with pytest.raises(StoppedEarly, match="SIGTERM"):
            run(store, tmp_path / "parts", name, model, settings)
    assert (tmp_path / "parts/state/mark.json").is_file()
    assert not (tmp_path / "parts/backbone.safetensors").exists()
    run(store, tmp_path / "parts", name, model, settings)
    weights = [(tmp_path / part / "backbone.safetensors").read_bytes() for part in ("whole", "parts")]
    assert weights[0] == weights[1]
    histories = [pd.read_csv(tmp_path / part / "history.csv") for part in ("whole", "parts")]
    timeless = [history.drop(columns=list(TIMES)) for history in histories]
    pd.testing.assert_frame_equal(*timeless, check_exact=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_seeds_matter_and_repeat(store, tmp_path, precision):
    settings = SETTINGS.model_copy(update={"epochs": 1, "precision": precision})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(store, tmp_path / name, seed=seed, settings=settings)
    a, b, c = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_other_settings_do_not_continue_a_stopped_run(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "run")
    other = SETTINGS.model_copy(update={"batch_size": 12})
    run(store, tmp_path / "run", settings=other)
    run(store, tmp_path / "fresh", settings=other)
    assert (tmp_path / "run/backbone.safetensors").read_bytes() == (
        tmp_path / "fresh/backbone.safetensors"
    ).read_bytes()


def test_a_run_resumed_in_another_precision_says_so(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "bfloat16")
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path)
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "float32")
    run(store, tmp_path)
    assert "resumed in float32 after bfloat16" in caplog.text
    assert json.loads((tmp_path / "backbone.json").read_text())["precision"] == "float32"


def test_the_time_limit_stops_and_saves(store, tmp_path):
    with pytest.raises(StoppedEarly, match="time limit"):
        run(store, tmp_path, max_minutes=0)
    assert (tmp_path / "state/mark.json").is_file()


def test_train_patients_only_unless_the_scope_is_all(store):
    manifest = pd.read_csv(store.with_name("manifest.csv"))
    train, everyone = read_data(store, 0), read_data(store, None)
    assert set(train.manifest["patient"]) == set(manifest.loc[manifest["split"] == "train", "patient"])
    assert len(everyone.manifest) == len(manifest)
    for data in (train, everyone):  # statistics and watchers never touch test patients
        expected = train.images[train.rows].double() / 255
        assert data.mean == pytest.approx([expected.mean().item()])
        assert data.std == pytest.approx([expected.std(correction=0).item()])
        labelled = manifest[(manifest["split"] != "test") & manifest["square"].notna()]
        assert len(data.watch.labels) == len(labelled)
        assert data.watch.is_query.sum() == (labelled["split"] == "val").sum()


def test_the_card_says_what_the_run_saw(store, tmp_path):
    run(store, tmp_path, fold=None)
    card = json.loads((tmp_path / "backbone.json").read_text())
    assert card["scope"] == "all"
    assert card["scans"] == 120
    assert card["patients"] == 20
    assert card["images_seen"] == 2 * 7 * 16
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert {"loss", "teacher_entropy", "kl", "prototypes_used", "feature_std", "knn_auroc"} <= set(history.columns)


def test_an_epoch_shows_each_scan_once_and_epochs_differ():
    order = batch_order(103, 10, seed=0, epoch=0)
    assert order.shape == (10, 10)
    assert len(order.unique()) == 100
    assert not torch.equal(order, batch_order(103, 10, seed=0, epoch=1))
    assert batch_order(3, 10, seed=0, epoch=0).shape == (1, 3)


def test_a_store_beside_another_manifest_is_refused(store, tmp_path):
    other = write_small_cohort(tmp_path / "other", patients=10)
    (tmp_path / "other/scans.h5").write_bytes(store.read_bytes())
    with pytest.raises(UserError, match=r"not those of manifest\.csv"):
        run(other, tmp_path / "out")


def test_asking_for_determinism_changes_no_bit_on_one_thread_of_a_cpu(store, tmp_path):
    for wanted in (True, False):
        settings = SETTINGS.model_copy(update={"deterministic": wanted, "precision": "float32", "epochs": 1})
        run(store, tmp_path / str(wanted), "dinov2", "vit", settings)
    on, off = (tmp_path / str(wanted) / "backbone.safetensors" for wanted in (True, False))
    assert on.read_bytes() == off.read_bytes()


@pytest.mark.parametrize(("model", "expected"), [("resnet", True), ("vit", False)])
def test_the_card_says_what_norm_the_head_got(store, tmp_path, model, expected):
    run(store, tmp_path, model=model, settings=SETTINGS.model_copy(update={"epochs": 1, "precision": "float32"}))
    card = json.loads((tmp_path / "backbone.json").read_text())
    assert (card["method"]["head_norm"], card["method"]["bottleneck_norm"]) == (expected, expected)
    assert card["settings"]["variants"]["dino"]["head_norm"] is None
    assert (card["kind"], card["source"]) == ("small", read_cohort(store).source)


@pytest.mark.parametrize(
    ("cohort", "kind", "source", "refused"),
    [
        ("a", "folder", "1", True),  # the same cohort
        ("b", "folder", "1", True),  # the same scans under another title
        ("b", "folder", "2", False),  # somebody else's folder
        ("b", "phantom", "2", False),
    ],
)
def test_a_start_knows_its_cohort_by_title_and_by_scans(cohort, kind, source, refused):
    start = Start(SETTINGS.variant("dino"), MODELS["resnet"], "b", 0, 0)
    start.origin = {"from": "run", "cohort": "a", "kind": "folder", "source": "1", "scope": "all", "fold": None}
    with pytest.raises(UserError, match="was trained on all of a, ") if refused else nullcontext():
        start.check_cohort(cohort, kind, source)


def test_a_published_cohort_under_another_title_is_the_same_one():
    start = Start(SETTINGS.variant("dino"), MODELS["resnet"], "b", 0, 0)
    start.origin = {"from": "run", "cohort": "olives", "kind": "olives", "source": "1", "scope": "all", "fold": None}
    with pytest.raises(UserError, match="was trained on all of olives, "):
        start.check_cohort("olives-published", "olives", "2")
