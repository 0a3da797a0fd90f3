"""Reconstructed scans and families of methods in the training section of the page."""

from pathlib import Path

import pytest
from PIL import Image

from octdino.config import METHODS, ReportSettings
from octdino.errors import UserError
from octdino.report import write_report
from octdino.report.results_reader import _pretraining, read_results
from octdino.report.training_section import reconstructions, training_table
from tests.report.test_report import Page
from tests.results import write_cohort, write_pretraining


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "phantom"
    write_cohort(root / "cohort")
    write_pretraining(root / "pretrain", "simclr")
    for backbone in ("vit_a", "vit_b"):
        folder = write_pretraining(root / "pretrain", "mae", backbone)
        for seed in (0, 1):
            other = folder.with_name(f"fold0-seed{seed}")
            other.mkdir(exist_ok=True)
            for name in ("backbone.json", "history.csv"):
                (other / name).write_bytes((folder / name).read_bytes())
            Image.new("RGB", (90, 60), (200, 10 * seed, 30)).save(other / "reconstruction.png")
    return root


def test_page_shows_the_first_run_per_method_and_backbone(root: Path) -> None:
    write_report(ReportSettings(), root, {}, root / "report.html")
    text = (root / "report.html").read_text()
    page = Page(text)
    titles = [f"mae · {backbone} · fold0-seed0" for backbone in ("vit_a", "vit_b")]
    assert [text.count(f"<summary>Reconstructed scans: {title}</summary>") for title in titles] == [1, 1]
    assert text.count("Reconstructed scans: ") == 4, "a summary and a text for screen readers each"
    assert text.count('<img src="data:image/jpeg;base64,') == 2
    section = page.text[page.text.index("Training curves and collapse") :]
    assert "the patches that the encoder sees (the others are gray)" in section


def test_page_without_reconstructions_has_no_such_part(root: Path) -> None:
    for picture in root.rglob("reconstruction.png"):
        picture.unlink()
    write_report(ReportSettings(), root, {}, root / "report.html")
    assert "Reconstructed scans" not in (root / "report.html").read_text()


def test_damaged_picture_raises_user_error_of_one_line(root: Path) -> None:
    path = root / "pretrain/mae/vit_a/fold0-seed0/reconstruction.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"reconstruction\.png: ") as caught:
        reconstructions(root, read_results(root).pretraining)
    assert "\n" not in str(caught.value)


def test_table_of_runs_has_the_family_of_each_method(tmp_path: Path) -> None:
    folders = [write_pretraining(tmp_path, name) for name in METHODS]
    heads, rows = training_table([_pretraining(folder / "backbone.json") for folder in folders])
    families = {row[0].text: row[heads.index("family")].text for row in rows}
    assert families == {
        "dino": "self-distillation", "dinov2": "self-distillation", "byol": "self-distillation",
        "simclr": "metric learning", "moco": "metric learning", "supcon": "metric learning",
        "vicreg": "canonical correlation", "mae": "masked image modeling",
    }  # fmt: skip
