"""Pictures of README.md from the default run: `make pictures`, or python -m docs.extension.pictures RESULTS OUT.

page.png is the first screen of the page, in Chromium; maps.png the class maps of the linear probe on DINO's features.
Only a run on the phantom is taken.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image

from docs.extension.gallery import cohort_kind
from octdino.data.atomic_files import replacing
from octdino.errors import UserError, mistake

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1120, 900  # px of page.png
MAPS = "explain/dino/*/*/labels_dino-linear.png"
ROWS = 2  # of maps that are kept
ROW_HEIGHT = 176  # px of one row in that figure


def write_pictures(results: Path, out: Path) -> None:
    """Write page.png and maps.png into `out`.

    Raises:
        UserError: another cohort than the phantom, an unfinished run, or no Chromium.
    """
    if (kind := cohort_kind(results)) != "phantom":
        raise UserError(f"{results}: a cohort of kind {kind}; expected the phantom, whose pictures show no patient")
    page, maps = results / "report" / "report.html", sorted(results.glob(MAPS))
    if not page.is_file() or not maps:
        raise UserError(f"{results}: no report/report.html or no {MAPS}; expected the finished default run")
    out.mkdir(parents=True, exist_ok=True)
    _save(Image.open(io.BytesIO(_screenshot(page))), out / "page.png")
    figure = Image.open(maps[0]).convert("RGBA")
    white = Image.new("RGBA", figure.size, "white")
    white.alpha_composite(figure)
    _save(white.crop((0, 0, figure.width, min(figure.height, ROWS * ROW_HEIGHT + 10))), out / "maps.png")


def _screenshot(page: Path) -> bytes:
    """Return a PNG of the first screen of a page."""
    from playwright.sync_api import sync_playwright

    program = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if program is None:
        raise UserError("no Chromium; on Debian and Ubuntu: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", device_scale_factor=1)
        tab.goto(page.resolve().as_uri())
        tab.wait_for_load_state("networkidle")
        picture = tab.screenshot()
        browser.close()
    return bytes(picture)


def _save(image: Image.Image, path: Path) -> None:
    """Write an image with a palette, which makes it small."""
    with replacing(path) as temporary:
        image.convert("RGB").quantize(256).save(temporary, "PNG", optimize=True)


def main(arguments: list[str]) -> int:
    """Write the pictures; return 2 after one line about a mistake."""
    if len(arguments) != 2:
        print("python -m docs.extension.pictures: error: expected RESULTS and OUT", file=sys.stderr)
        return 2
    try:
        write_pictures(Path(arguments[0]), Path(arguments[1]))
    except UserError as error:
        print(f"python -m docs.extension.pictures: error: {mistake(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
