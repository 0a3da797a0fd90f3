"""The figure of reconstructed scans: of validation scans, beside the weights of a run whose method has one."""

import numpy as np
import pytest
import torch
from PIL import Image

from octdino.pretrain.methods.method import Method
from octdino.pretrain.pretraining_data import read_data
from octdino.pretrain.reconstruction import BLANK, plot_pictures, reconstruct, write_reconstruction
from tests.pretrain.small_runs import SETTINGS, run

CPU = torch.device("cpu")
ONE_EPOCH = SETTINGS.model_copy(update={"epochs": 1, "precision": "float32"})


class Echo(Method):
    """Reconstructs a scan as itself, and blanks its left half."""

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
    assert pixels.shape[1] > pixels.shape[0] > 300
    assert len(np.unique(pixels)) > 50
    run(store, tmp_path, "dino", "vit", ONE_EPOCH)
    assert not (tmp_path / "reconstruction.png").exists()


def test_figure_is_the_same_for_the_same_run(store, tmp_path):
    for name in "ab":
        run(store, tmp_path / name, "mae", "vit", ONE_EPOCH)
    assert (tmp_path / "a/reconstruction.png").read_bytes() == (tmp_path / "b/reconstruction.png").read_bytes()


def test_scans_are_of_validation_patients_with_their_own_gray_levels(data):
    pictures = reconstruct(Echo(None, torch.nn.Identity, 1), data, 32, 0, CPU)
    validation = data.online_eval.images[torch.from_numpy(data.online_eval.is_query)].float() / 255
    assert len(pictures["scan"]) == 6
    for scan in pictures["scan"]:
        assert (validation - scan).abs().amax((1, 2, 3)).min() < 1e-5
    assert len(pictures["scan"].flatten(1).unique(dim=0)) == 6, "evenly spread, no scan twice"
    assert pictures["half"][..., :16].isnan().all()
    assert torch.equal(pictures["half"][..., 16:], pictures["scan"][..., 16:])


def test_method_is_back_in_training_mode(data):
    method = Echo(None, torch.nn.Identity, 1).train()
    reconstruct(method, data, 32, 0, CPU)
    assert method.training


def test_blank_pixels_are_gray_and_gray_scans_have_three_channels():
    figure = plot_pictures({"scan": torch.rand(2, 1, 8, 8), "blank": torch.full((2, 1, 8, 8), torch.nan)})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["scan", "", "blank", ""]
    shown = figure.axes[3].images[0].get_array()
    assert shown.shape == (8, 8, 3)
    assert (shown == BLANK).all()


def test_without_validation_scans_no_figure_is_written(data, tmp_path, monkeypatch):
    monkeypatch.setitem(data.online_eval.__dict__, "is_query", np.zeros(len(data.online_eval.labels), bool))
    path = tmp_path / "reconstruction.png"
    path.write_text("of an earlier run")
    write_reconstruction(path, Echo(None, torch.nn.Identity, 1), data, 32, 0, CPU)
    assert list(tmp_path.iterdir()) == []


def test_failed_drawing_leaves_the_earlier_figure_and_no_half_written_file(data, tmp_path, monkeypatch):
    path = tmp_path / "reconstruction.png"
    path.write_text("of an earlier run")

    def fail(*_, **__):
        raise RuntimeError("drawing")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(RuntimeError, match="drawing"):
        write_reconstruction(path, Echo(None, torch.nn.Identity, 1), data, 32, 0, CPU)
    assert [found.name for found in tmp_path.iterdir()] == ["reconstruction.png"]
    assert path.read_text() == "of an earlier run"
