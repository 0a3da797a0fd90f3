"""The page as a reader has it: opened from the file system in Chromium, which Playwright drives."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright import sync_api

from octdino.config import ReportSettings
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import FINDINGS
from octdino.report import write_report
from tests.data.test_formula_cells import FORMULAS, HARMLESS
from tests.report.test_report import CONFIG
from tests.results import make_results

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")

# The contrast of every visible piece of text to the colour behind it (WCAG 2.1), with where it stands.
CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || element.closest("svg, script, style") || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 80)]);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll("img, svg.octdino, input, button, [role=region]")]
  .filter((e) => !(e.getAttribute("alt") || e.getAttribute("aria-label") || e.textContent.trim()))
  .map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_results(tmp_path_factory.mktemp("results") / "phantom", ("scratch-finetune", "dino-linear", "clinical"))
    out = root / "report" / "report.html"
    write_report(ReportSettings(examples=2, license="CC BY 4.0"), root, CONFIG, out)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """The page, and what went wrong in it."""

    def __init__(self, browser: Any, path: Path, **settings: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **settings)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self.requests.append(asked.url))
        self.page.goto(path.as_uri())


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, page_file)
    yield opened
    opened.context.close()


def open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")


def test_it_opens_without_an_error_or_a_request(opened: Opened, page_file: Path) -> None:
    open_all(opened.page)
    opened.page.evaluate("document.querySelectorAll('img').forEach((i) => (i.loading = 'eager'))")
    opened.page.wait_for_function("[...document.images].every((i) => i.complete)")
    assert opened.errors == []
    assert [url[:60] for url in opened.requests if not url.startswith(("data:", page_file.as_uri()))] == []
    assert opened.page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)")
    assert opened.page.locator("figure svg.octdino").count() >= 13
    assert opened.page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Any, page_file: Path, scheme: str) -> None:
    opened = Opened(browser, page_file, color_scheme=scheme)
    open_all(opened.page)
    found = opened.page.evaluate(CONTRASTS)
    assert len(found) > 500
    assert [one for one in found if one[0] < 4.5] == []
    opened.context.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_its_window(browser: Any, page_file: Path, width: int) -> None:
    opened = Opened(browser, page_file, viewport={"width": width, "height": 900})
    open_all(opened.page)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.context.close()


def test_tables_sort_by_keyboard(opened: Opened) -> None:
    table = opened.page.locator("#labels table.sortable").last
    table.locator("xpath=ancestor::details").evaluate("d => (d.open = true)")
    head = table.locator("thead th").nth(2)  # positive test patients
    head.locator("button").focus()

    def values() -> list[float]:
        cells = table.locator("tbody tr td:nth-child(3)")
        return [float(cell.get_attribute("data-sort")) for cell in cells.all()]

    opened.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    assert len(set(values())) > 1
    opened.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())


def test_families_are_headings_of_the_comparison_until_it_is_sorted(opened: Opened) -> None:
    table = opened.page.locator("#comparison table.sortable").first
    rows = [row.inner_text().split("\t") for row in table.locator("tbody tr").all()]
    assert [row[0] for row in rows if len(row) == 1] == [
        f"{family}, {share} of the labels"
        for share in ("30 %", "100 %")
        for family in ("supervised", "self-distillation", "clinical baseline")
    ]
    assert [len(row) == 1 for row in rows] == [True, False] * 6, "one arm per family"
    table.locator("thead button").nth(2).click()
    rows = [row.inner_text().split("\t") for row in table.locator("tbody tr").all()]
    assert len(rows) == 6
    assert min(len(row) for row in rows) > 1


def test_long_tables_filter_and_say_how_many_are_left(opened: Opened) -> None:
    tables = opened.page.locator("#checklist")
    tables.evaluate("d => (d.open = true)")
    rows = opened.page.locator("#checklist tbody tr")
    everything = rows.count()
    field = opened.page.get_by_label(re.compile("^Filter rows: Checklist"))
    field.fill("for the AUTHORS")
    left = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(left) < everything
    assert all("for the authors" in row.inner_text() for row in left)
    assert opened.page.locator("#checklist [role=status]").inner_text() == f"{len(left)} of {everything}"
    field.fill("")
    assert sum(row.is_visible() for row in rows.all()) == everything


def test_a_table_is_saved_as_csv(opened: Opened, page_file: Path, tmp_path: Path) -> None:
    with opened.page.expect_download() as waiting:
        opened.page.get_by_label(re.compile("^Download as CSV: Macro scores")).click()
    assert re.fullmatch(r"octdino_comparison_\d+\.csv", waiting.value.suggested_filename)
    waiting.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text(encoding="utf-8"))))
    metrics = pd.read_csv(page_file.parents[1] / "evaluate" / "metrics.csv")
    macro = metrics[(metrics["label"] == "macro") & (metrics["metric"] == "auroc")]
    assert len(rows) == len(macro)
    for row in rows:
        fraction = float(row["labels"].rstrip(" %")) / 100
        own = macro[(macro["arm"] == row["arm"]) & (macro["fraction"].sub(fraction).abs() < 1e-9)].iloc[0]
        assert float(row["AUROC"]) == pytest.approx(own["value"], abs=5e-4)
        low, high = map(float, row["AUROC (small print)"].strip("[]").split(","))
        assert (low, high) == pytest.approx((own["low"], own["high"]), abs=5e-4)


def test_a_saved_table_holds_no_formula(opened: Opened, tmp_path: Path) -> None:
    """The same cells as in tests/test_formula_cells.py."""
    cells = [cell for cell in (*FORMULAS, *HARMLESS) if cell == cell.strip() and cell]  # as the page shows them
    table = opened.page.locator(".scroll > table").filter(has=opened.page.locator("tbody tr")).first
    table.evaluate(
        """(table, cells) => {
          const row = table.tBodies[0].querySelector("tr:not(.group)").cloneNode(true);
          table.tBodies[0].replaceChildren(...cells.map((text) => {
            const copy = row.cloneNode(true);
            for (const cell of copy.cells) cell.textContent = text;
            return copy;
          }));
        }""",
        cells,
    )
    with opened.page.expect_download() as waiting:
        opened.page.locator(".tools button").first.click()
    waiting.value.save_as(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    expected = ["'" + cell if cell in FORMULAS else cell for cell in cells]
    assert [row[0] for row in rows] == [cell.replace("\u2212", "-") for cell in expected]
    assert [row[-1] for row in rows] == [row[0] for row in rows]


def test_a_link_opens_what_is_folded(opened: Opened) -> None:
    card = opened.page.locator("#model-card")
    assert card.get_attribute("open") is None
    opened.page.locator("#checklist").evaluate("d => (d.open = true)")
    opened.page.locator("#checklist a[href='#model-card']").first.click()
    opened.page.wait_for_function("document.getElementById('model-card').open")


def test_the_methods_text_is_copied(opened: Opened, page_file: Path) -> None:
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.page.get_by_role("button", name="Copy the text").click()
    opened.page.wait_for_function("document.querySelector('#methods [role=status]').textContent === 'Copied'")
    paragraphs = page_file.with_name("methods.md").read_text().split("\n\n")[1:-1]
    assert opened.page.evaluate("navigator.clipboard.readText()") == "\n\n".join(paragraphs)
    opened.page.get_by_role("button", name="Copy the BibTeX").click()
    opened.page.wait_for_function("document.getElementById('bibtex').closest('details').open")
    bibliography = page_file.with_name("references.bib").read_text().strip()
    assert opened.page.evaluate("navigator.clipboard.readText()") == bibliography


def test_without_a_clipboard_the_text_is_selected(opened: Opened) -> None:
    opened.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    opened.page.get_by_role("button", name="Copy the text").click()
    opened.page.wait_for_function("getSelection().toString().includes('resamples of patients')")


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_nothing_is_wider_than_the_paper(opened: Opened, paper: str) -> None:
    """Printed at the width between the margins of the page, in its print style, with all folded parts open."""
    width = {"A4": 210, "Letter": 216}[paper] - 24
    opened.page.emulate_media(media="print", color_scheme="dark")
    opened.page.set_viewport_size({"width": int(width / 25.4 * 96), "height": 1000})
    open_all(opened.page)
    assert opened.page.evaluate(
        """() => [...document.querySelectorAll("table, svg.octdino, img, pre")]
          .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .map((e) => e.outerHTML.slice(0, 120))"""
    ) == []  # fmt: skip
    assert opened.page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 35, 40)", "the light page's ink"
    repeated = opened.page.evaluate("getComputedStyle(document.querySelector('thead')).display")
    assert repeated == "table-header-group"


def test_it_prints(opened: Opened) -> None:
    pdf = opened.page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", pdf)) < 60
    opened.page.emulate_media(media="print")
    assert not opened.page.locator(".tools").first.is_visible()


def test_an_open_finding_is_red(browser: Any, page_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "phantom"
    shutil.copytree(page_file.parents[1], root)
    table = pd.DataFrame(
        [
            ["copy", "fold 0", 1, "two are one picture", "open"],
            ["eye", "fold 0", 2, "known", "acknowledged"],
            ["volume", "manifest.csv", 0, "no visit is named", "not checkable"],
        ]
    )
    write_table(root / "audit" / "findings.csv", table.set_axis([c.name for c in FINDINGS], axis=1), FINDINGS)
    card = {"asked": {"copy": "no picture is a copy"}, "scans": 360, "runs": 3}
    (root / "audit" / "audit.json").write_text(json.dumps(card))
    write_report(ReportSettings(examples=0), root, CONFIG, root / "report.html")
    opened = Opened(browser, root / "report.html")
    assert "The audit found 1 leak." in opened.page.locator("#answer").inner_text()
    cells = opened.page.locator("#audit tbody td:last-child")
    assert [cell.inner_text() for cell in cells.all()] == ["open", "acknowledged", "not checkable"]
    colours = [cell.evaluate("e => getComputedStyle(e).color.match(/\\d+/g).map(Number)") for cell in cells.all()]
    red, quiet, _ = colours
    assert red[0] > red[1] + 60
    assert max(quiet) - min(quiet) < 30
    assert [one for one in opened.page.evaluate(CONTRASTS) if one[0] < 4.5] == []
    opened.context.close()
