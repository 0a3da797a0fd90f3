"""Sheets of augmented views on the page: one per method, damaged ones left out."""

import base64
import io
from pathlib import Path

from PIL import Image

from octdino.report.view_sheets import view_sheets


def write_sheet(folder: Path, gray: int, mode: str = "L") -> None:
    folder.mkdir(parents=True)
    Image.new(mode, (40, 20), (gray,) * 3 if mode == "RGB" else gray).save(folder / "views.png")


def test_each_method_has_the_sheet_of_its_first_run_that_has_one(tmp_path: Path) -> None:
    runs = tmp_path / "pretrain"
    write_sheet(runs / "dino/resnet18/fold0-seed1", 100)
    write_sheet(runs / "dino/resnet18/fold0-seed2", 200)
    write_sheet(runs / "simclr/resnet18/fold0-seed0", 50, "RGB")
    (runs / "byol/resnet18/fold0-seed0").mkdir(parents=True)
    (runs / "byol/resnet18/fold0-seed0/views.png").write_bytes(b"\x89PNG\r\n\x1a\n but no image")
    dino, simclr = view_sheets(tmp_path)
    assert (dino.run, simclr.run) == ("dino · resnet18 · fold0-seed1", "simclr · resnet18 · fold0-seed0")
    head, data = dino.image.split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (40, 20)
        assert abs(image.getpixel((5, 5)) - 100) <= 2


def test_no_run_has_no_sheet(tmp_path: Path) -> None:
    assert view_sheets(tmp_path) == []
