"""Links of the page lead to the files that it shows, wherever results/ is; figures leave no hole."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from markupsafe import Markup

from octdino.config import ReportSettings
from octdino.html_template import page_environment
from octdino.report import write_report
from octdino.report.file_links import FileLinks, PlacedFigure, place_figures
from tests.report.test_report import CONFIG, Page
from tests.results import make_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a run #1") / "phantom"
    return make_results(root, ("scratch-finetune", "dino-linear", "clinical"))


def links_of(page: Path) -> set[str]:
    return {unquote(link) for link in Page(page.read_text()).links if not link.startswith(("#", "data:"))}


@pytest.mark.parametrize("place", ["phantom/report/report.html", "elsewhere/page.html"])
def test_every_link_is_a_file_relative_to_the_page(results: Path, place: str) -> None:
    out = results.parent / place
    write_report(ReportSettings(examples=0), results, CONFIG, out)
    links = links_of(out)
    assert [link for link in links if not (out.parent / link).is_file()] == []
    found = {(out.parent / link).resolve().relative_to(results.parent).as_posix() for link in links}
    folder = Path(place).parent.as_posix()
    assert found >= {
        f"phantom/evaluate/{name}" for name in ("metrics.csv", "comparison.csv", "comparison.svg", "roc.svg")
    }
    assert found >= {f"phantom/cohort/{name}.csv" for name in ("manifest", "splits", "quarantine")}
    assert found >= {
        f"{folder}/{name}" for name in ("methods.md", "references.bib", "data_card.md", "training_learning.svg")
    }


def test_links_hold_where_the_results_are_moved(results: Path, tmp_path: Path) -> None:
    write_report(ReportSettings(examples=0), results, CONFIG, results / "report" / "report.html")
    moved = tmp_path / "moved"
    shutil.copytree(results, moved)
    page = moved / "report" / "report.html"
    assert [link for link in links_of(page) if not (page.parent / link).resolve().is_relative_to(moved)] == []
    assert "a copy of the page alone is complete, but its links need them" in Page(page.read_text()).text


def figure(width: float, height: float, notice: str = "") -> str:
    look = f'class="octdino notice" role="img" aria-label="{notice}"' if notice else 'class="octdino"'
    return f'<svg width="{width}pt" height="{height}pt" {look}></svg>'


@pytest.mark.parametrize(
    ("sizes", "layouts"),
    [
        ([(345, 200), (345, 210)], ["half", "half"]),
        ([(345, 200), (345, 500)], ["alone", "alone"]),
        ([(345, 200), (345, 210), (345, 205)], ["half", "half", "alone"]),
        ([(691, 200), (345, 210), (691, 205), (345, 210)], ["wide", "alone", "wide", "alone"]),
    ],
)
def test_half_figures_share_a_row_only_with_one_of_their_height(
    tmp_path: Path, sizes: list[tuple[int, int]], layouts: list[str]
) -> None:
    figures = {str(index): figure(*size) for index, size in enumerate(sizes)}
    placed = place_figures(figures, [(name, "") for name in figures], FileLinks(tmp_path, tmp_path / "page.html"))
    assert [one.layout for one in placed] == layouts


def test_a_sentence_in_place_of_a_plot_parts_no_pair(tmp_path: Path) -> None:
    figures = {"a": figure(345, 200), "b": figure(345, 43, "one &amp; only"), "c": figure(345, 200)}
    captions = [(name, "") for name in (*figures, "missing")]
    placed = place_figures(figures, captions, FileLinks(tmp_path, tmp_path / "page.html"))
    assert [(one.layout, one.notice) for one in placed] == [("half", ""), ("notice", "one & only"), ("half", "")]


def test_a_notice_that_several_figures_share_is_shown_once_and_no_other_is_lost() -> None:
    notices = ["", "", "No a.", "No A.", "No a.", ""]
    placed = [PlacedFigure(Markup("" if notice else "<svg/>"), "c", notice, "alone", []) for notice in notices]
    module = page_environment("report").get_template("macros.html.j2").make_module({"place": lambda _: placed})
    text = str(module.figures([]))
    assert re.findall(r'<p class="how-not">(.*?)</p>', text) == ["No a.", "No A."]
    assert text.count("<svg/>") == 3
