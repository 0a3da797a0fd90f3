"""The pretrain stage: resume is bit-identical, only the scans in scope are read, metadata describe the run."""

import pandas as pd
import pytest
import torch

from octdino.data.cohort_reader import read_cohort
from octdino.errors import StoppedEarly, UserError
from octdino.pretrain.pretraining_data import batch_order, read_data
from tests.pretrain.small_runs import MASKED, PAIRS, PRECISIONS, SETTINGS, TIMES, metadata, run, stop_at
from tests.small import write_small_cohort


# Each method on each kind of network, and in each precision.
@pytest.mark.usefixtures("counted_flops")
@pytest.mark.parametrize(
    ("name", "model", "precision"),
    [(name, model, PRECISIONS[model == "vit"]) for name, model in PAIRS]
    + [(name, "vit", "float32") for name in MASKED],
)
def test_resume_after_sigterm_is_bit_identical(store, tmp_path, monkeypatch, name, model, precision):
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
def test_same_seed_gives_same_weights_and_another_seed_others(store, tmp_path, precision):
    settings = SETTINGS.model_copy(update={"epochs": 1, "precision": precision})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(store, tmp_path / name, seed=seed, settings=settings)
    a, b, c = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_stopped_run_with_other_settings_starts_again(store, tmp_path, monkeypatch):
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


def test_resume_in_another_precision_logs_warning(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "bfloat16")
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path)
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "float32")
    run(store, tmp_path)
    assert "resumed in float32 after bfloat16" in caplog.text
    assert metadata(tmp_path)["precision"] == "float32"


def test_time_limit_stops_and_saves(store, tmp_path):
    with pytest.raises(StoppedEarly, match="time limit"):
        run(store, tmp_path, max_minutes=0)
    assert (tmp_path / "state/mark.json").is_file()


def test_only_training_patients_are_read_unless_scope_is_all(store):
    manifest = pd.read_csv(store.with_name("manifest.csv"))
    train, all_scans = read_data(store, 0), read_data(store, None)
    assert set(train.manifest["patient"]) == set(manifest.loc[manifest["split"] == "train", "patient"])
    assert len(all_scans.manifest) == len(manifest)
    for data in (train, all_scans):  # statistics and online evaluation exclude test patients
        expected = train.images[train.rows].double() / 255
        assert data.mean == pytest.approx([expected.mean().item()])
        assert data.std == pytest.approx([expected.std(correction=0).item()])
        labeled = manifest[(manifest["split"] != "test") & manifest["square"].notna()]
        assert len(data.online_eval.labels) == len(labeled)
        assert data.online_eval.is_query.sum() == (labeled["split"] == "val").sum()


def test_metadata_contains_scope_scans_and_patients(store, tmp_path):
    run(store, tmp_path, fold=None)
    found = metadata(tmp_path)
    assert found["scope"] == "all"
    assert found["scans"] == 120
    assert found["patients"] == 20
    assert found["images_seen"] == 2 * 7 * 16
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert {"loss", "teacher_entropy", "kl", "prototypes_used", "feature_std", "knn_auroc"} <= set(history.columns)


def test_epoch_contains_each_scan_once_in_new_order():
    order = batch_order(103, 10, seed=0, epoch=0)
    assert order.shape == (10, 10)
    assert len(order.unique()) == 100
    assert not torch.equal(order, batch_order(103, 10, seed=0, epoch=1))
    assert batch_order(3, 10, seed=0, epoch=0).shape == (1, 3)


def test_store_beside_another_manifest_raises_user_error(store, tmp_path):
    other = write_small_cohort(tmp_path / "other", patients=10)
    (tmp_path / "other/scans.h5").write_bytes(store.read_bytes())
    with pytest.raises(UserError, match=r"not those of manifest\.csv"):
        run(other, tmp_path / "out")


def test_deterministic_is_bit_identical_on_one_cpu_thread(store, tmp_path):
    for wanted in (True, False):
        settings = SETTINGS.model_copy(update={"deterministic": wanted, "precision": "float32", "epochs": 1})
        run(store, tmp_path / str(wanted), "dinov2", "vit", settings)
    on, off = (tmp_path / str(wanted) / "backbone.safetensors" for wanted in (True, False))
    assert on.read_bytes() == off.read_bytes()


@pytest.mark.parametrize(("model", "expected"), [("resnet", True), ("vit", False)])
def test_metadata_contains_resolved_norm_of_head(store, tmp_path, model, expected):
    run(store, tmp_path, model=model, settings=SETTINGS.model_copy(update={"epochs": 1, "precision": "float32"}))
    found = metadata(tmp_path)
    assert (found["method"]["head_norm"], found["method"]["bottleneck_norm"]) == (expected, expected)
    assert found["settings"]["variants"]["dino"]["head_norm"] is None
    assert (found["kind"], found["source"]) == ("small", read_cohort(store).source)
