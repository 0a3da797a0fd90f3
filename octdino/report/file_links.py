"""Links from the page to the files of the run: relative to it, so that they hold if results/ is moved."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from octdino.plotting import is_wide, notice_of


class Link(NamedTuple):
    """A link to a file: its address relative to the page, and its path below results/{cohort}."""

    href: str
    path: str


@dataclass(frozen=True)
class FileLinks:
    """Links from a page at `page` to files below `root`, results/{cohort}."""

    root: Path
    page: Path

    def to(self, *paths: str) -> list[Link]:
        """Return links to those of the paths below `root` that are files."""
        return [Link(self.address(self.root / path), path) for path in paths if (self.root / path).is_file()]

    def in_each(self, folders: list[str], name: str) -> list[Link]:
        """Return links to a file in each of several folders below `root`, as far as it is there."""
        return self.to(*(f"{folder}/{name}" for folder in folders))

    def beside(self, *names: str) -> list[Link]:
        """Return links to files that are written beside the page, whether or not they exist yet."""
        return [Link(quote(name), name) for name in names]

    def address(self, path: Path) -> str:
        """Return the address of a file, relative to the page."""
        return quote(Path(os.path.relpath(path.resolve(), self.page.parent.resolve())).as_posix())


@dataclass(frozen=True)
class PlacedFigure:
    """A figure on the page.

    Attributes:
        svg: empty where there is a sentence in place of a plot.
        notice: this sentence.
        layout: wide: the whole width; half: beside the next or the previous one; alone: half, its caption beside it.
        links: to its file and to the tables that it plots.
    """

    svg: Markup
    caption: str
    notice: str
    layout: str
    links: list[Link]


SOURCES = {
    "comparison": ("metrics",), "difference": ("comparison",), "label_efficiency": ("metrics",), "labels": ("metrics",),
    "patients_needed": ("label_efficiency",),
    "label_difference": ("comparison",), "calibration": ("metrics",), "subgroups": ("subgroups",),
    "external": ("external",),
}  # fmt: skip


def place_figures(figures: dict[str, str], captions: list[tuple[str, str]], links: FileLinks) -> list[PlacedFigure]:
    """Return the figures of a section in order; two neighbors of about one height share a row, so that none is empty.

    Args:
        figures: SVG by name.
        captions: name and caption of each; those without a figure are left out.
    """
    shown = [(name, caption, figures[name]) for name, caption in captions if name in figures]
    placed: list[PlacedFigure] = []
    waiting: tuple[int, float] | None = None  # place and height of a half figure without a neighbor
    for name, caption, text in shown:
        paths = [f"evaluate/{name}.svg", *(f"evaluate/{table}.csv" for table in SOURCES.get(name, ()))]
        notice, layout = notice_of(text), "wide" if is_wide(text) else "alone"
        height = _height(text)
        if not notice and layout == "alone":
            if waiting and 0.7 < height / waiting[1] < 1 / 0.7:
                before = placed[waiting[0]]
                placed[waiting[0]] = PlacedFigure(before.svg, before.caption, before.notice, "half", before.links)
                layout, waiting = "half", None
            else:
                waiting = (len(placed), height)
        elif not notice:
            waiting = None
        found = links.to(*paths)
        placed.append(
            PlacedFigure(Markup("" if notice else text), caption, notice, "notice" if notice else layout, found)
        )
    return placed


def _height(text: str) -> float:
    """Return the height of an SVG in points; 1 where it does not say."""
    _, _, rest = text.partition('height="')
    number = rest.partition("pt")[0]
    return float(number) if number.replace(".", "", 1).isdigit() else 1.0
