"""History of a run: the best epoch that is exported, throughput, TensorBoard's events, log lines."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from octdino.data.sampling_units import unit
from octdino.errors import StoppedEarly, UserError
from octdino.pretrain import trainer
from octdino.pretrain.pretraining_data import read_data
from tests.pretrain.small_runs import STEPS, metadata, run, settings, stop_at, weights
from tests.small import write_small_cohort


def test_export_best_writes_weights_of_epoch_with_best_knn_score(store, tmp_path, monkeypatch):
    scores = iter([0.6, 0.9, 0.7])
    seen = []

    def scoring(backbone, *_):
        seen.append({key: value.clone() for key, value in backbone.state_dict().items()})
        return {"knn_auroc": next(scores)}

    monkeypatch.setattr(trainer, "evaluate_online", scoring)
    run(store, tmp_path, settings=settings(epochs=3, export="best"))
    exported = load_file(tmp_path / "backbone.safetensors")
    assert metadata(tmp_path)["exported_epoch"] == 2
    assert all(torch.equal(exported[key], value) for key, value in seen[1].items())
    assert any(not torch.equal(exported[key], value) for key, value in seen[2].items())


def test_export_best_of_resumed_run_is_that_of_uninterrupted_run(store, tmp_path, monkeypatch):
    chosen = settings(epochs=3, export="best")
    run(store, tmp_path / "whole", settings=chosen)
    with monkeypatch.context() as patch:
        stop_at(patch, 2 * STEPS + 1)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", settings=chosen)
    run(store, tmp_path / "parts", settings=chosen)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert metadata(tmp_path / "parts")["exported_epoch"] == metadata(tmp_path / "whole")["exported_epoch"]


def test_export_best_without_validation_labels_raises_user_error(tmp_path):
    store = write_small_cohort(tmp_path / "cohort")
    for name in ("manifest.csv", "splits.csv"):
        path = store.with_name(name)
        table = pd.read_csv(path)
        path.write_text(table.assign(split=table["split"].replace("val", "train")).to_csv(index=False))
    with pytest.raises(UserError, match="export: best needs a label that is 0 and 1 among validation patients"):
        run(store, tmp_path / "run", settings=settings(export="best"))


def test_more_chunks_than_pairs_of_scans_are_refused(store, tmp_path):
    """Batch norm on one value per channel ends in a traceback of torch."""
    chosen = settings()
    with pytest.raises(UserError, match=r"grad_cache_chunks: \d+ chunks of \d+ scans per step; expected at most "):
        run(store, tmp_path / "run", settings=settings(grad_cache_chunks=chosen.batch_size // 2 + 1))


@pytest.mark.usefixtures("counted_flops")
def test_mfu_is_between_0_and_1(store, tmp_path):
    run(store, tmp_path)
    used = pd.read_csv(tmp_path / "history.csv")["utilisation"]
    assert ((used > 0) & (used < 1)).all()


def test_tensorboard_contains_every_epoch_once(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(store, tmp_path)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    history = pd.read_csv(tmp_path / "history.csv")
    events = accumulator.Scalars("loss")
    assert [event.step for event in events] == history["step"].tolist()
    assert [event.value for event in events] == pytest.approx(history["loss"].tolist(), rel=1e-6)


def test_epoch_log_line_contains_loss_throughput_and_mfu(store, tmp_path, caplog):
    caplog.set_level("INFO", "octdino")
    run(store, tmp_path, settings=settings(epochs=1))
    (line,) = [text for text in caplog.messages if text.startswith("epoch 1/1 loss ")]
    assert re.search(r" img/s, data wait [\d.]+ %, augmentation [\d.]+ %, MFU \d+ %, 0 s left$", line)


@pytest.mark.parametrize(
    ("state", "expected"),
    [("known", "72 scans of 12 patients"), ("unknown", "72 images"), ("none", "72 images")],
)
def test_scans_are_counted_with_patients_only_if_these_are_known(store, state, expected):
    assert replace(read_data(store, 0), unit=unit(state)).counted() == expected
