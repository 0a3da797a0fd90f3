"""Checkpoints of a run that are kept, and the extension of a finished run to more epochs."""

import pandas as pd
import pytest

from octdino.errors import StoppedEarly
from tests.pretrain.small_runs import STEPS, metadata, run, settings, stop_at, weights


def test_latest_checkpoints_are_kept_and_a_damaged_one_is_skipped(store, tmp_path, monkeypatch):
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


def test_finished_run_is_extended_to_more_epochs_only_with_extend(store, tmp_path):
    for name in ("extended", "anew"):
        run(store, tmp_path / name)
    two = weights(tmp_path / "extended")
    run(store, tmp_path / "extended", settings=settings(epochs=3, extend=True))
    history = pd.read_csv(tmp_path / "extended/history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["lr"].iloc[2] < history["lr"].iloc[0], "the schedule goes on over the new length"
    assert metadata(tmp_path / "extended")["epochs"] == [2, 3]
    run(store, tmp_path / "anew", settings=settings(epochs=3))
    run(store, tmp_path / "three", settings=settings(epochs=3))
    assert weights(tmp_path / "anew") == weights(tmp_path / "three")
    assert weights(tmp_path / "extended") not in (two, weights(tmp_path / "three"))


def test_finished_run_of_same_length_starts_again(store, tmp_path):
    run(store, tmp_path)
    first = weights(tmp_path)
    run(store, tmp_path, settings=settings(extend=True))
    assert weights(tmp_path) == first
    assert metadata(tmp_path)["epochs"] == [2]


def test_stopped_extension_starts_again_without_extend(store, tmp_path, monkeypatch):
    run(store, tmp_path / "parts")
    with monkeypatch.context() as patch:
        stop_at(patch, 2 * STEPS + 1)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", settings=settings(epochs=3, extend=True))
    run(store, tmp_path / "parts", settings=settings(epochs=3))
    run(store, tmp_path / "three", settings=settings(epochs=3))
    assert weights(tmp_path / "parts") == weights(tmp_path / "three")


def test_stopped_and_resumed_extension_is_bit_identical(store, tmp_path, monkeypatch):
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
    assert metadata(tmp_path / "parts")["epochs"] == [2, 4]
