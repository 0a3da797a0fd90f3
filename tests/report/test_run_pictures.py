"""Pictures of pretraining runs and families of methods in the training section of the page."""

import base64
import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from octdino.config import METHODS, ReportSettings
from octdino.errors import UserError
from octdino.report import write_report
from octdino.report.results_reader import Pretraining, _pretraining
from octdino.report.run_pictures import run_pictures
from octdino.report.training_section import training_table
from tests.report.test_report import Page
from tests.results import write_cohort, write_pretraining


def write_picture(path: Path, gray: int, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (40, 20), (gray,) * 3 if mode == "RGB" else gray).save(path)


def runs_below(folder: Path) -> list[Pretraining]:
    return [Pretraining(*path.parts[-3:], {}, pd.DataFrame()) for path in sorted(folder.glob("*/*/*"))]


def test_each_method_and_backbone_has_the_picture_of_its_first_run_that_has_one(tmp_path: Path) -> None:
    runs = tmp_path / "pretrain"
    (runs / "dino/resnet18/fold0-seed0").mkdir(parents=True)
    write_picture(runs / "dino/resnet18/fold0-seed1/views.png", 100)
    write_picture(runs / "dino/resnet18/fold0-seed2/views.png", 200)
    write_picture(runs / "mae/vit_a/fold0-seed0/views.png", 30, "RGB")
    write_picture(runs / "mae/vit_a/fold0-seed0/reconstruction.png", 60, "RGB")
    write_picture(runs / "mae/vit_b/fold0-seed0/reconstruction.png", 90, "RGB")
    found = run_pictures(tmp_path, runs_below(runs))
    assert [picture.title for picture in found] == [
        "Augmented views: dino · resnet18 · fold0-seed1",
        "Augmented views: mae · vit_a · fold0-seed0",
        "Reconstructed scans: mae · vit_a · fold0-seed0",
        "Reconstructed scans: mae · vit_b · fold0-seed0",
    ]
    for picture, gray in zip(found, (100, 30, 60, 90), strict=True):
        head, data = picture.image.split(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (40, 20)
            assert abs(image.convert("L").getpixel((5, 5)) - gray) <= 2


def test_page_shows_pictures_in_its_training_section(tmp_path: Path) -> None:
    root = tmp_path / "phantom"
    write_cohort(root / "cohort")
    write_picture(write_pretraining(root / "pretrain", "mae") / "reconstruction.png", 60)
    write_report(ReportSettings(), root, {}, root / "report.html")
    text = (root / "report.html").read_text()
    assert text.count("<summary>Reconstructed scans: mae · ") == 1
    page = Page(text)
    section = page.text[page.text.index("Training curves and collapse") :]
    assert "the patches that the encoder sees (the others are gray)" in section


def test_page_without_pictures_has_no_such_part(tmp_path: Path) -> None:
    root = tmp_path / "phantom"
    write_cohort(root / "cohort")
    write_pretraining(root / "pretrain", "mae")
    write_report(ReportSettings(), root, {}, root / "report.html")
    text = (root / "report.html").read_text()
    assert "Reconstructed scans" not in text
    assert "Augmented views" not in text


@pytest.mark.parametrize("name", ["views.png", "reconstruction.png"])
def test_damaged_picture_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "pretrain/mae/vit_a/fold0-seed0" / name
    write_picture(path, 60)
    path.write_bytes(b"\x89PNG\r\n\x1a\n but no image")
    with pytest.raises(UserError, match=rf"{name}: the figure cannot be read") as caught:
        run_pictures(tmp_path, runs_below(tmp_path / "pretrain"))
    assert "\n" not in str(caught.value)


def test_table_of_runs_has_the_family_of_each_method(tmp_path: Path) -> None:
    folders = [write_pretraining(tmp_path, name) for name in METHODS]
    _, rows = training_table([_pretraining(folder / "backbone.json") for folder in folders])
    families = {row[0].text: row[0].small for row in rows}
    assert families == {
        "dino": "self-distillation", "dinov2": "self-distillation", "byol": "self-distillation",
        "simclr": "metric learning", "moco": "metric learning", "supcon": "metric learning",
        "vicreg": "canonical correlation", "mae": "masked image modeling",
        "lejepa": "joint-embedding prediction",
    }  # fmt: skip


def test_pictures_beyond_the_budget_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "phantom"
    write_cohort(root / "cohort")
    for method in ("dino", "mae", "simclr"):
        write_picture(write_pretraining(root / "pretrain", method) / "views.png", 60)
    whole = len(run_pictures(root, runs_below(root / "pretrain"))[0].image)
    monkeypatch.setattr("octdino.report.run_pictures.BUDGET", whole + 1)
    write_report(ReportSettings(), root, {}, root / "report" / "report.html")
    page = Page((root / "report" / "report.html").read_text())
    assert len(page.sources) == 2
    assert page.text.count("Not included, to keep this page small") == 1
    assert "../pretrain/simclr/resnet18/fold0-seed0/views.png" in page.links
