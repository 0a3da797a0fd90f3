"""A checkpoint that does not fit its run is skipped with a warning, and training starts again."""

import shutil
import zipfile

import pytest
import torch

from octdino.errors import StoppedEarly
from tests.pretrain.small_runs import SETTINGS, run, stop_at

BRIEF = SETTINGS.model_copy(update={"epochs": 1, "precision": "float32"})


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """Return the weights of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    run(store, folder, settings=BRIEF)
    return (folder / "backbone.safetensors").read_bytes()


@pytest.fixture(scope="module")
def stopped(store, tmp_path_factory):
    """Return the folder of a run that was stopped after three of its four steps."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(StoppedEarly):
            run(store, folder, settings=BRIEF)
    return folder


def spoiled(state, change):
    """Return the checkpoint's state with one change, named by `change`."""
    weight = next(name for name, value in state["method"].items() if value.ndim == 4)
    entry = next(index for index, kept in state["optimizer"]["state"].items() if kept["exp_avg"].ndim == 4)
    if change == "no step":
        del state["step"]
    elif change == "another key":
        state["more"] = 1
    elif change == "step far on":
        state["step"] = 10**6
    elif change == "step is text":
        state["step"] = "3"
    elif change == "a tensor is missing":
        del state["method"][weight]
    elif change == "a tensor of another shape":
        state["method"][weight] = state["method"][weight][:1]
    elif change == "a tensor is a number":
        state["method"][weight] = 1.0
    elif change == "an average of another shape":
        state["optimizer"]["state"][entry]["exp_avg"] = torch.zeros(3)
    elif change == "no groups":
        state["optimizer"]["param_groups"] = []
    elif change == "a history that is none":
        state["history"] = [{"loss": "low"}]
    elif change == "a history of other epochs":
        state["history"] = [{"epoch": 1, "loss": 1.0}]
    elif change == "a best that is none":
        state["best"] = {"score": 1.0}
    return state


CHANGES = (
    "no step", "another key", "step far on", "step is text", "a tensor is missing", "a tensor of another shape",
    "a tensor is a number", "an average of another shape", "no groups", "a history that is none",
    "a history of other epochs", "a best that is none",
)  # fmt: skip


@pytest.mark.parametrize("change", [*CHANGES, "a zip of something else", "a pickle that wants code"])
def test_checkpoint_that_does_not_fit_starts_training_again(store, whole, stopped, tmp_path, caplog, change):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    (path,) = (folder / "state").glob("step-*.pt")
    if change == "a zip of something else":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing of ours")
    elif change == "a pickle that wants code":
        torch.save({"step": shutil.rmtree}, path)
    else:
        torch.save(spoiled(torch.load(path, weights_only=True), change), path)
    run(store, folder, settings=BRIEF)
    assert f"{path}: " in caplog.text
    assert "or starting again" in caplog.text
    assert "resumed at" not in caplog.text
    assert (folder / "backbone.safetensors").read_bytes() == whole


def test_unchanged_checkpoint_is_resumed(store, whole, stopped, tmp_path, caplog):
    caplog.set_level("INFO", "octdino")
    shutil.copytree(stopped, tmp_path / "run")
    run(store, tmp_path / "run", settings=BRIEF)
    assert "resumed at step 3 of 4" in caplog.text
    assert (tmp_path / "run" / "backbone.safetensors").read_bytes() == whole
