"""The figure of reconstructed scans: of validation scans, beside the weights of a run whose method has one."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from octdino.augment.view_sheet import HIDDEN
from octdino.data.cohort_reader import read_cohort
from octdino.pretrain.history import History
from octdino.pretrain.pretraining_data import read_data
from octdino.pretrain.reconstruction import reconstruct, reconstruction_sheet
from octdino.training.checkpoints import RunState
from octdino.training.run_monitor import RunMonitor
from tests.pretrain.small_runs import SETTINGS, run

CPU = torch.device("cpu")
ONE_EPOCH = SETTINGS.model_copy(update={"epochs": 1, "precision": "float32"})


class Echo(torch.nn.Module):
    """As much of a method as is called for a sheet: it reconstructs a scan as itself, and blanks its left half."""

    def reconstruct(self, images, generator):
        half = images.clone()
        half[..., : images.shape[-1] // 2] = torch.nan
        return {"scan": images, "half": half}


@pytest.fixture(scope="module")
def data(store):
    return read_data(store, 0)


def test_run_of_mae_writes_a_readable_figure_and_run_of_dino_deletes_an_earlier_one(store, tmp_path):
    run(store, tmp_path, "mae", "vit", ONE_EPOCH)
    pixels = np.asarray(Image.open(tmp_path / "reconstruction.png").convert("L"))
    assert pixels.shape[0] > pixels.shape[1] > 300, "one row per scan"
    assert len(np.unique(pixels)) > 50
    run(store, tmp_path, "dino", "vit", ONE_EPOCH)
    assert not (tmp_path / "reconstruction.png").exists()


def test_figure_is_the_same_for_the_same_run(store, tmp_path):
    for name in "ab":
        run(store, tmp_path / name, "mae", "vit", ONE_EPOCH)
    assert (tmp_path / "a/reconstruction.png").read_bytes() == (tmp_path / "b/reconstruction.png").read_bytes()


def test_scans_are_of_validation_patients_with_their_own_gray_levels(data):
    pictures = reconstruct(Echo(), data, 32, 0, CPU)
    validation = data.online_eval.images[torch.from_numpy(data.online_eval.is_query)].float() / 255
    assert len(pictures["scan"]) == 6
    for scan in pictures["scan"]:
        assert (validation - scan).abs().amax((1, 2, 3)).min() < 1e-5
    assert len(pictures["scan"].flatten(1).unique(dim=0)) == 6, "evenly spread, no scan twice"
    assert pictures["half"][..., :16].isnan().all()
    assert torch.equal(pictures["half"][..., 16:], pictures["scan"][..., 16:])


def test_method_is_back_in_training_mode(data):
    method = Echo().train()
    reconstruct(method, data, 32, 0, CPU)
    assert method.training


def test_rows_are_scans_and_blank_pixels_are_gray(data):
    rows, caption = reconstruction_sheet(Echo(), data, 32, 0, CPU, "the run")
    assert caption.startswith("the run: ")
    pictures = reconstruct(Echo(), data, 32, 0, CPU)
    ids = list(data.online_eval.scan_ids)
    assert len({row.name for row in rows}) == 6
    for index, row in enumerate(rows):
        assert data.online_eval.is_query[ids.index(row.name)]
        assert torch.equal(row.scan, data.online_eval.images[ids.index(row.name)])
        assert [cell.title for cell in row.views] == ["scan\n32 px", "half\n32 px"]
        scan, half = (cell.image for cell in row.views)
        assert torch.equal(scan, (pictures["scan"][index] * 255).round().to(torch.uint8))
        assert (half[..., :16] == HIDDEN).all()
        assert torch.equal(half[..., 16:], scan[..., 16:])


def test_scan_ids_of_the_sheet_are_those_of_the_pixels(store, data):
    cohort = read_cohort(store)
    rows = [cohort.manifest["scan_id"].tolist().index(name) for name in data.online_eval.scan_ids]
    assert np.array_equal(cohort.images(np.array(rows)), data.online_eval.images.numpy())


def test_without_validation_scans_there_is_no_sheet(data, monkeypatch):
    monkeypatch.setitem(data.online_eval.__dict__, "is_query", np.zeros(len(data.online_eval.labels), bool))
    assert reconstruction_sheet(Echo(), data, 32, 0, CPU, "x") is None


@pytest.mark.parametrize("place", ["octdino.pretrain.methods.mae.Mae.reconstruct", "PIL.Image.Image.save"])
def test_failed_drawing_is_a_warning_after_the_weights_and_leaves_the_earlier_figure(
    store, tmp_path, monkeypatch, caplog, place
):
    path, written = tmp_path / "reconstruction.png", []

    def fail(*_, **__):
        written.append((tmp_path / "backbone.safetensors").exists())
        raise RuntimeError("drawing")

    def show(monitor, make):  # a figure of the first epochs of an extended run
        path.write_text("of an earlier run")
        monkeypatch.setattr(place, fail)
        show_reconstruction(monitor, make)

    show_reconstruction = RunMonitor.show_reconstruction
    monkeypatch.setattr(RunMonitor, "show_reconstruction", show)
    run(store, tmp_path, "mae", "vit", ONE_EPOCH)
    assert written == [True]
    assert f"{path} is left out from here on: drawing" in caplog.text
    assert path.read_text() == "of an earlier run"
    assert [found.name for found in tmp_path.glob("*reconstruction*")] == ["reconstruction.png"]
    assert RunState(tmp_path / "state", {}, 1)._read_mark()["finished"]


def test_best_epoch_is_exported_and_the_last_one_reconstructs(store, tmp_path, monkeypatch):
    """The decoder that reconstructs is the last epoch's."""
    networks = []
    monkeypatch.setattr(
        "octdino.pretrain.pretraining.reconstruction_sheet", lambda method, *_: networks.append(method.exported)
    )
    best = {}
    load_export = History.load_export

    def zeros(history, exported):
        best.update({name: torch.zeros_like(value) for name, value in exported.state_dict().items()})
        history.best = {"weights": best, "epoch": 1}
        return load_export(history, exported)

    monkeypatch.setattr(History, "load_export", zeros)
    run(store, tmp_path, "mae", "vit", ONE_EPOCH.model_copy(update={"export": "best"}))
    written = load_file(tmp_path / "backbone.safetensors")
    assert not any(value.any() for value in written.values())
    assert any(value.any() for value in networks[0].state_dict().values())
