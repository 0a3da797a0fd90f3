"""The local page in Chromium, which Playwright drives: dropping scans, switching overlays, reading by keyboard."""

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from octdino.data.cohort_reader import read_cohort
from octdino.inference.ensemble import load_ensemble
from tests.report.test_browser import CHROMIUM, CONTRASTS, NAMELESS

from .served import computation_of, pages, serving

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")

DROP = """(files) => {
  const data = new DataTransfer();
  for (const [name, text] of files)
    data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.getElementById("drop").dispatchEvent(
      new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(model):
    with serving(computation_of(model)) as address:
        yield address


class Opened:
    """The page, what went wrong in it, and what it asked for."""

    def __init__(self, browser: Any, address: str, **settings: Any) -> None:
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self.requests.append(asked.url))
        self.page.goto(address)

    def drop(self, *files: tuple[str, bytes]) -> None:
        self.page.evaluate(DROP, [[name, base64.b64encode(content).decode()] for name, content in files])
        expect(self.page.locator("#status")).to_have_text(re.compile("files? done"), timeout=30_000)


@pytest.fixture
def opened(browser, address):
    opened = Opened(browser, address)
    yield opened
    opened.context.close()


def scan(run, place):
    name = read_cohort(run / "cohort" / "scans.h5").manifest["path"].iloc[place]
    return (run.parent / "files" / name).read_bytes()


def test_dropped_scans_get_the_labels_of_the_model_and_overlays(run, model, opened, address):
    page = opened.page
    hostile = "<img src=x onerror=document.title='run'>.png"
    opened.drop((hostile, scan(run, 0)), ("text.png", b"no image"), ("b.png", scan(run, 1)))
    images = read_cohort(run / "cohort" / "scans.h5").images([0, 1])
    expected = load_ensemble([model]).outputs(images)
    cards = page.locator("article")
    assert cards.count() == 3
    for row, card in enumerate((cards.nth(0), cards.nth(2))):
        numbers = card.locator("dl dd:not(.bar)")
        for index in range(2):
            called = "called" if expected.calls[row, index] else "not called"
            start = f"{expected.probabilities[row, index]:.2f}, {called}, threshold "
            assert numbers.nth(index).text_content().startswith(start)
    assert cards.nth(0).locator("h2").text_content() == hostile
    assert "no known image format" in cards.nth(1).text_content()
    layer = cards.nth(0).locator(".stack img").nth(1)
    assert layer.is_hidden()
    sources = []
    for label in ("square", "stripes"):
        cards.nth(0).get_by_role("button", name=label).press("Enter")
        assert layer.is_visible()
        assert page.evaluate("[...document.images].every((i) => i.complete)")
        sources.append(layer.get_attribute("src"))
        assert f"class map of {label}" in cards.nth(0).locator(".stack img").first.get_attribute("alt")
    assert sources[0] != sources[1]
    cards.nth(0).get_by_role("button", name="stripes").click()
    assert layer.is_hidden()
    assert page.title().startswith("dino-linear")
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith(("data:", f"{address}/"))] == []
    page.get_by_role("button", name="Remove all").click()
    assert cards.count() == 0


def test_a_volume_is_read_by_slider_and_its_highest_b_scan_by_a_button(run, opened):
    opened.drop(("eye.tif", pages(read_cohort(run / "cohort" / "scans.h5").images(range(9)))))
    page = opened.page
    slider = page.get_by_role("slider", name="B-scan")
    expect(page.locator("output")).to_have_text("B-scan 4 (0 to 8)")
    before = page.locator(".stack img").first.get_attribute("src")
    slider.press("ArrowRight")
    expect(page.locator("output")).to_have_text("B-scan 5 (0 to 8)")
    assert page.locator(".stack img").first.get_attribute("src") != before
    button = page.get_by_role("button", name=re.compile("show B-scan")).first
    frame = re.search(r"show B-scan (\d)", button.get_attribute("aria-label"))[1]
    button.click()
    expect(page.locator("output")).to_have_text(f"B-scan {frame} (0 to 8)")
    shown = page.locator("dl dd:not(.bar)").first.text_content()[:4]
    assert shown == button.text_content()
    assert opened.errors == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_text_can_be_read_and_fits_the_window(run, browser, address, scheme, width):
    opened = Opened(browser, address, color_scheme=scheme, viewport={"width": width, "height": 800})
    opened.drop(("a.png", scan(run, 0)), ("b.txt", b""))
    opened.page.get_by_role("button", name="square").first.click()
    assert [one for one in opened.page.evaluate(CONTRASTS) if one[0] < 4.5] == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    nameless = opened.page.evaluate(NAMELESS)
    assert len([one for one in nameless if not one.startswith(('<img alt=""', '<input type="file"'))]) == 0
    assert opened.page.get_by_label("Choose files").count() == 1
    layer = "the second picture of a stack; the first one's text names it"
    assert sum(one.startswith('<img alt=""') for one in nameless) == opened.page.locator("img + img").count(), layer
    opened.context.close()
