"""views.png and curves.svg: what the network gets, from the first epoch on, without any effect on the run."""

import io
import math
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from octdino.augment.view_sheet import ScanRow, ViewCell, to_pixels, write_view_sheet
from octdino.errors import StoppedEarly
from octdino.pretrain.first_views import first_views
from octdino.pretrain.pretraining import PANELS
from octdino.training.learning_curves import MOST_POINTS, LearningCurves, Panel, draw_curves
from octdino.training.run_monitor import RunMonitor
from tests.pretrain.small_runs import STEPS, TIMES, run, settings, stop_at, weights
from tests.pretrain.test_identity import make

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("name", "model"), [("dino", "resnet"), ("dinov2", "vit")])
def test_a_run_with_pictures_and_trackers_is_bit_identical_to_one_without(store, tmp_path, monkeypatch, name, model):
    run(store, tmp_path / "with", name, model)
    assert (tmp_path / "with/views.png").is_file()
    assert (tmp_path / "with/curves.svg").is_file()
    assert (tmp_path / "with/tensorboard").is_dir()
    with monkeypatch.context() as patch:
        patch.setattr(RunMonitor, "show_views", lambda *_, **__: None)
        patch.setattr(RunMonitor, "show_curves", lambda *_, **__: None)
        run(store, tmp_path / "without", name, model, settings=settings(tracking=["none"]))
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    histories = [pd.read_csv(tmp_path / part / "history.csv").drop(columns=[*TIMES]) for part in ("with", "without")]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


SHOWN = [("dino", "resnet"), ("dinov2", "vit"), ("mae", "vit"), ("simclr", "resnet")]


@pytest.mark.parametrize(("name", "model"), SHOWN)
def test_shown_views_are_those_of_the_batch(store, tmp_path, name, model):
    trainer = make(store, tmp_path, name, model)
    step = STEPS + 1
    batch = trainer.batches.load(step)
    masked = batch.sampled["mask"].any((0, 2)).nonzero() if name == "dinov2" else torch.tensor([[5]])
    position = int(masked[0])
    row = int(trainer.batches.rows(step)[position])
    views, hidden = trainer.batches.views_of(step, row, position)
    for shown, used in zip(views, batch.views, strict=True):
        torch.testing.assert_close(shown, used[:, position], atol=1e-5, rtol=0)
    if name == "dinov2":
        assert torch.equal(hidden.flatten(1), batch.sampled["mask"][:, position])
        assert hidden.any()
    elif name == "mae":
        order = batch.sampled["order"][0, position]
        assert hidden.flatten().nonzero()[:, 0].tolist() == sorted(order[4:].tolist()), "3/4 of 16 patches"
    else:
        assert hidden is None
    assert (step, position) in trainer.batches.occurrences(row, 2)


def test_the_sheet_has_scans_of_the_first_batch_of_different_patients(store, tmp_path):
    trainer = make(store, tmp_path, "dinov2", "vit")
    rows, caption = first_views(trainer.batches, trainer.data, "pretrain/dinov2/b/fold0-seed0")
    assert len({row.name.split("-")[0] for row in rows}) == len(rows) == 4
    assert {row.name for row in rows} <= set(trainer.batches.scan_ids(0))
    titles = [cell.title.replace("\n", " ") for cell in rows[0].views]
    assert titles == ["large 1 32 px", "large 1, masked", "large 2 32 px", "large 2, masked", "small 1 16 px",
                      "small 2 16 px"]  # fmt: skip
    assert "first batch" in caption
    assert "hidden" in caption


def test_masked_views_of_mae_show_only_the_patches_that_its_encoder_gets(store, tmp_path, monkeypatch):
    trainer = make(store, tmp_path, "mae", "vit", epochs=6)
    rows, caption = first_views(trainer.batches, trainer.data, "x")
    titles = [cell.title.split("\n")[0] for cell in rows[0].views]
    assert titles == [f"batch {index}: large 1{end}" for index in (1, 2, 3) for end in ("", ",")]
    assert "hidden" in caption
    batch, seen = trainer.batches.load(0), []
    encoder = trainer.method.network["backbone"]
    monkeypatch.setattr(encoder, "forward", lambda images, visible: seen.append(visible) or torch.zeros(16, 5, 64))
    trainer.method.encode(batch)
    ids = trainer.batches.scan_ids(0)
    for row in rows:
        plain, masked = (cell.image[0].unfold(0, 8, 8).unfold(1, 8, 8).flatten(2) for cell in row.views[:2])
        gray = (masked == 128).all(-1).flatten()
        visible = seen[0][ids.index(row.name)]
        assert sorted(visible.tolist()) == (~gray).nonzero()[:, 0].tolist()
        assert torch.equal(plain.flatten(0, 1)[visible], masked.flatten(0, 1)[visible])


def test_methods_with_few_views_are_shown_in_several_batches(store, tmp_path):
    trainer = make(store, tmp_path, "simclr", epochs=5)
    rows, caption = first_views(trainer.batches, trainer.data, "x")
    assert {len(row.views) for row in rows} == {6}
    assert "first 3 batches" in caption
    pictures = [cell.image.numpy().tobytes() for row in rows for cell in row.views]
    assert len(set(pictures)) == len(pictures)


def test_pixels_of_a_view_are_those_before_standardization():
    image = torch.randint(0, 256, (1, 16, 16)).float() / 255
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[1, 2] = True
    shown = to_pixels((image - 0.2) / 0.3, [0.2], [0.3], hidden)
    assert (shown[0, 4:8, 8:12] == 128).all()
    assert torch.equal(shown[0, 8:], (image[0, 8:] * 255).round().to(torch.uint8))


def test_hidden_patches_need_not_be_square():
    hidden = torch.tensor([[False, True], [False, False], [True, False], [False, False]])  # 4 x 8 px each
    shown = to_pixels(torch.zeros(1, 16, 16), [0.2], [0.3], hidden)[0]
    gray = torch.zeros(16, 16, dtype=torch.bool)
    gray[:4, 8:] = gray[8:12, :8] = True
    assert torch.equal(shown == 128, gray)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_contains_the_pixels_of_its_views(tmp_path, channels):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (channels, 160, 160)).astype(np.uint8))
    small = torch.from_numpy(rng.integers(0, 256, (channels, 80, 80)).astype(np.uint8))
    rows = [ScanRow(f"scan {i}", image, [ViewCell("a\nb", image), ViewCell("c", small)]) for i in range(2)]
    write_view_sheet(tmp_path / "views.png", rows, "A caption")
    with Image.open(tmp_path / "views.png") as sheet:
        pixels = np.asarray(sheet)
    wanted = small[0].numpy() if channels == 1 else small.permute(1, 2, 0).numpy()
    height, width = wanted.shape[:2]
    corners = np.argwhere((pixels == wanted[0, 0]).reshape(*pixels.shape[:2], -1).all(-1)).tolist()
    places = [(y, x) for y, x in corners if np.array_equal(pixels[y : y + height, x : x + width], wanted)]
    assert len(places) == 2, "once per row"


def test_curves_are_there_after_the_first_epoch_and_stale_files_are_gone(store, tmp_path, monkeypatch):
    (tmp_path / "tensorboard/old").mkdir(parents=True)
    (tmp_path / "curves.svg").write_text("old")
    (tmp_path / "views.png").write_text("old")
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path)
    assert not (tmp_path / "tensorboard/old").exists()
    assert not (tmp_path / "history.csv").exists()
    assert "epoch 1" in (tmp_path / "curves.svg").read_text()
    before = (tmp_path / "views.png").read_bytes()
    assert Image.open(io.BytesIO(before)).format == "PNG"
    run(store, tmp_path)
    assert (tmp_path / "views.png").read_bytes() == before
    text = (tmp_path / "curves.svg").read_text()
    assert "epoch 2" in text
    for title in ("loss", "learning rate", "kNN macro AUROC", "RankMe", "teacher entropy"):
        assert title in text


def test_pictures_that_cannot_be_written_are_a_warning(store, tmp_path, caplog):
    for name in ("views.png", "curves.svg"):
        (tmp_path / name / "x").mkdir(parents=True)
    run(store, tmp_path)
    for name in ("views.png", "curves.svg"):
        warnings = [
            text for text in caplog.messages if text.startswith(f"{tmp_path / name} is left out from here on: ")
        ]
        assert len(warnings) == 1
    assert (tmp_path / "backbone.safetensors").is_file()


LINES = {
    "one epoch": [{"epoch": 1, "loss": 3.0}],
    "constant": [{"epoch": 1, "loss": 0.0}, {"epoch": 2, "loss": 0.0}],
    "negative": [{"epoch": 1, "loss": -5.0}, {"epoch": 2, "loss": -70.0}],
    "over orders of magnitude": [{"epoch": 1, "loss": 1e5}, {"epoch": 2, "loss": 1e-7}],
    "hardly any difference": [{"epoch": 1, "loss": 1e9}, {"epoch": 2, "loss": 1e9 + 1e-6}],
    "not finite": [{"epoch": 1, "loss": math.nan}, {"epoch": 2, "loss": math.inf}, {"epoch": 3, "loss": 2.0}],
}


@pytest.mark.parametrize("name", LINES)
def test_curves_of_odd_histories_are_valid_svg_within_the_plot(name):
    root = ElementTree.fromstring(
        draw_curves({"<a & b>": LINES[name]}, [Panel("loss", "loss", logarithmic=True)], "epoch")
    )
    circle = root.find(f".//{SVG}circle")
    assert 50 <= float(circle.get("cx")) <= 350
    assert 46 <= float(circle.get("cy")) <= 150
    assert "nan" not in ElementTree.tostring(root, "unicode")


def test_long_curves_keep_their_extremes_and_few_points():
    rows = [{"epoch": epoch, "loss": 1.0 + (epoch == 777)} for epoch in range(1, 10_001)]
    root = ElementTree.fromstring(draw_curves({"run": rows}, [Panel("loss", "loss")], "epoch"))
    (line,) = [path.get("d") for path in root.iter(f"{SVG}path") if path.get("stroke-linejoin")]
    heights = [float(point.split()[1]) for point in line[1:].split("L")]
    assert len(heights) <= MOST_POINTS
    assert min(heights) < max(heights) - 80


def test_curves_of_short_epochs_are_not_drawn_each_time(tmp_path):
    curves, lines = LearningCurves(tmp_path / "c.svg", PANELS, "epoch"), {"run": LINES["one epoch"]}
    assert curves.update(lines)
    assert not curves.update(lines)
    assert curves.update(lines, last=True)


def test_monitor_of_other_processes_writes_nothing(tmp_path, monkeypatch, store):
    monkeypatch.setattr("octdino.training.run_monitor.is_rank0", lambda: False)
    run(store, tmp_path, settings=settings(epochs=1, tracking=["tensorboard"]))
    assert not {"views.png", "curves.svg", "tensorboard"} & {path.name for path in tmp_path.iterdir()}
