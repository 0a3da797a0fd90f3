"""Steps whose loss or gradient is not finite change nothing, are counted and listed, and end a run if too many."""

from itertools import pairwise

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from octdino.errors import UserError
from octdino.pretrain.trainer import Trainer
from tests.pretrain.small_runs import STEPS, make_loss_nan, metadata, run, settings


def test_step_without_finite_loss_is_skipped_and_its_scans_are_written(store, tmp_path, monkeypatch):
    make_loss_nan(monkeypatch, 2, 5)
    run(store, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["skipped"].tolist() == [1, 1]
    assert history["loss"].notna().all()
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "backbone.safetensors").values())
    assert metadata(tmp_path)["skipped_steps"] == 2
    table = pd.read_csv(tmp_path / "skipped.csv")
    assert table["step"].tolist() == [2] * 16 + [5] * 16
    assert set(table["scan_id"]) <= set(pd.read_csv(store.with_name("manifest.csv"))["scan_id"])


def test_skipped_step_changes_no_weight_and_no_buffer(store, tmp_path, monkeypatch):
    positions = []
    take_step = Trainer.take_step

    def watching(self):
        positions.append({key: value.clone() for key, value in self.method.state_dict().items()})
        take_step(self)

    make_loss_nan(monkeypatch, 2)
    monkeypatch.setattr(Trainer, "take_step", watching)
    run(store, tmp_path, settings=settings(epochs=1))
    same = [all(torch.equal(a[key], b[key]) for key in a) for a, b in pairwise(positions)]
    assert same == [False, False, True]


def test_more_skipped_steps_than_max_skipped_raise_user_error(store, tmp_path, monkeypatch):
    make_loss_nan(monkeypatch, *range(100))
    with pytest.raises(UserError, match=r"skipped\.csv: 4 steps had no finite loss.* max_skipped \(2\)"):
        run(store, tmp_path, settings=settings(max_skipped=2))
    assert len(pd.read_csv(tmp_path / "skipped.csv")) == STEPS * 16, "written at the end of the first epoch"
    assert not (tmp_path / "backbone.safetensors").exists()


@pytest.mark.parametrize("export", ["last", "best"])
def test_epoch_of_only_skipped_steps_has_nan_loss_in_history(store, tmp_path, monkeypatch, export):
    make_loss_nan(monkeypatch, *range(STEPS))
    run(store, tmp_path, settings=settings(export=export))
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["skipped"].tolist() == [STEPS, 0]
    assert history["loss"].isna().tolist() == [True, False]


def test_run_of_only_skipped_steps_raises_user_error(store, tmp_path, monkeypatch):
    make_loss_nan(monkeypatch, *range(100))
    with pytest.raises(UserError, match=rf"skipped\.csv: all {2 * STEPS} steps had no finite loss"):
        run(store, tmp_path)
    assert not (tmp_path / "backbone.safetensors").exists()


def test_steps_after_weights_diverged_are_skipped_and_counted(store, tmp_path, monkeypatch):
    take_step = Trainer.take_step

    def diverging(self):
        if self.step == 1:
            with torch.no_grad():
                next(self.method.trained.parameters()).fill_(torch.inf)
        take_step(self)

    monkeypatch.setattr(Trainer, "take_step", diverging)
    with pytest.raises(UserError, match="7 steps had no finite loss"):
        run(store, tmp_path, settings=settings(max_skipped=4))


def test_new_run_deletes_skipped_csv_of_earlier_run(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        make_loss_nan(patch, 2)
        run(store, tmp_path)
    assert (tmp_path / "skipped.csv").exists()
    run(store, tmp_path, settings=settings(batch_size=12))
    assert not (tmp_path / "skipped.csv").exists()
