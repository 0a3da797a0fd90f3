"""Plotting style of all figures: one color and marker per arm, SVG that is readable on a light and a dark page.

Figures are SVG with real text and no background. Ink is written as `currentColor`, which is black or white as the page
sets it. The same data give the same bytes.
"""

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from octdino.config import Arm
from octdino.data.atomic_files import replacing

INK = "#0a0b0c"  # becomes currentColor
# Each color has a contrast of 3 to white and to near-black. The ten are of a greedy search over sRGB in which two are
# at least 13 apart in CAM02-UCS in simulated deuteranopia and protanopia (Machado 2009), and 10 in tritanopia.
FIXED = {"scratch": "#848484", "imagenet": "#729c5a", "clinical": "#ae84b4"}
POOL = ("#3054fc", "#f65a12", "#30784e", "#ba06ae", "#4e90fc", "#c02a24", "#7e5a78")
CATEGORIES = (  # of groups that are no arms, such as patients in a map of scans
    "#2684d0", "#d9631e", "#139c77", "#7a6fd6", "#cc1a40", "#6b8210", "#0d7380", "#806640", "#a67373", "#26a60d",
    "#a61ad9", "#736680",
)  # fmt: skip
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
Dash = str | tuple[float, tuple[float, ...]]
MODES: dict[str, tuple[tuple[str, ...], Dash]] = {  # markers: those of the first inits, of the next ones, and so on
    "linear": (("o", "p", "h"), "-"),
    "knn": (("^", "<", ">"), (0, (3, 1, 1, 1))),
    "mlp": (("v", "*", "8"), (0, (1.5, 1.2))),
    "finetune": (("s", "X", "P"), (0, (5, 2))),
    "": (("D", "d", "d"), (0, (1, 1))),
}
WIDTH = 4.8  # inches: two beside each other on a desk, one still readable on a phone
LABEL_HEIGHT = 0.155  # inches per label beside a line's end
LONGEST_NAME = 30  # characters of a name in a figure


@dataclass(frozen=True)
class ArmStyle:
    """Color, marker and line style of an arm."""

    color: str
    marker: str
    dash: Dash


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """Return the style per arm: color by init, marker and dash by mode; depends on the set of arms only.

    Where there are more inits than colors, colors repeat with other markers.
    """
    inits = [init for init in sorted({Arm.named(arm).init for arm in arms}) if init not in FIXED]
    found = {}
    for arm in arms:
        init, mode = Arm.named(arm)
        place = 0 if init in FIXED else inits.index(init)
        markers, dash = MODES.get(mode, MODES[""])
        marker = markers[place // len(POOL) % len(markers)]
        found[arm] = ArmStyle(FIXED.get(init) or POOL[place % len(POOL)], marker, dash)
    return found


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Return the name, its middle replaced by an ellipsis where it has more than `longest` characters."""
    if len(name) <= longest:
        return name
    tail = longest // 2 - 1
    return f"{name[: longest - tail - 1]}\N{HORIZONTAL ELLIPSIS}{name[-tail:]}"


def grid_shape(panels: int, most: int = 4) -> tuple[int, int]:
    """Return rows and columns of a grid with as few empty cells as possible; of equal ones that with three columns."""
    if panels <= 3:
        return 1, max(panels, 1)
    columns = min(range(2, most + 1), key=lambda n: (-panels % n, abs(n - 3), -n))
    return math.ceil(panels / columns), columns


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions at least `gap` apart, in the order of `places`, near them and within `low` and `high`.

    Positions that would overlap form a block around their mean. The range must have room for all of them.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    blocks: list[tuple[float, list[int]]] = []  # center, members
    for index in order:
        center, members = places[index], [index]
        while True:
            half = gap * (len(members) - 1) / 2
            center = min(max(center, low + half), high - half)
            if not blocks or blocks[-1][0] + gap * (len(blocks[-1][1]) - 1) / 2 + gap <= center - half + 1e-9:
                break
            members = blocks.pop()[1] + members
            center = sum(places[member] for member in members) / len(members)
        blocks.append((center, members))
    found = [0.0] * len(places)
    for center, members in blocks:
        for rank, member in enumerate(members):
            found[member] = center + gap * (rank - (len(members) - 1) / 2)
    return found


@dataclass(frozen=True)
class LineEnd:
    """The last point of a line in data coordinates, and the label that is written beside it."""

    x: float
    y: float
    label: str
    color: str


def label_line_ends(figure: Figure, panels: Sequence[tuple[Axes, list[LineEnd]]]) -> None:
    """Write the labels of lines to the right of their panel, so that none overlap, each joined to its line.

    Call it when nothing else is added to the figure. A panel needs `LABEL_HEIGHT` inches per label.
    """
    notes = [
        (axes, ends, [
            axes.annotate(
                shortened(end.label), (end.x, end.y), (1.04, end.y), textcoords=axes.get_yaxis_transform(),
                va="center", fontsize=8, annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": end.color, "linewidth": 1.0, "shrinkA": 1, "shrinkB": 3,
                            "relpos": (0, 0.5)},
            ) for end in ends
        ]) for axes, ends in panels if ends
    ]  # fmt: skip
    for _ in range(2):  # labels at the rim of a panel change its height a little
        if engine := figure.get_layout_engine():  # without drawing the figure each time
            engine.execute(figure)
        for axes, ends, written in notes:
            box, to_display = axes.get_window_extent(), axes.transData
            high = [float(to_display.transform((end.x, end.y))[1]) for end in ends]
            gap = min(LABEL_HEIGHT * figure.dpi, box.height / max(len(ends) - 1, 1))
            for note, y in zip(written, spread(high, gap, box.y0, box.y1), strict=True):
                note.set_y(float(to_display.inverted().transform((box.x0, y))[1]))


def wide_enough(
    low: float, high: float, least: float, floor: float = -math.inf, ceiling: float = math.inf
) -> tuple[float, float]:
    """Return limits of an axis around [low, high] that span at least `least` and stay within floor and ceiling."""
    margin = max(0.04 * (high - low), (least - (high - low)) / 2)
    return max(low - margin, floor), min(high + margin, ceiling)


@contextmanager
def figure_style() -> Iterator[None]:
    """Set matplotlib's settings within this block."""
    settings: Any = {
        "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8.5, "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.grid": True,
        "grid.color": INK, "grid.alpha": 0.14, "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.6,
        "legend.frameon": False, "legend.handlelength": 2.4, "figure.constrained_layout.use": True,
        "figure.facecolor": "none", "axes.facecolor": "none", "svg.fonttype": "none", "path.simplify_threshold": 0.3,
        "font.family": "DejaVu Sans", "text.usetex": False, "text.parse_math": False,
    }  # fmt: skip
    with mpl.rc_context(settings):
        yield


def svg(figure: Figure, name: str, description: str) -> str:
    """Return the figure as an SVG element, for a file or inside a page; `name` makes its ids unique in a page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9.]+_[0-9_]+"', "", text)  # figure_1, axes_1, line2d_3: nothing refers to them
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace("*{stroke-linejoin", "svg.octdino *{stroke-linejoin")  # a page has other elements
    text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", FONT)
    look = (
        "<style>svg.octdino{color:#2b2b2b}"
        "@media screen and (prefers-color-scheme:dark){svg.octdino{color:#d4d4d4}}</style>"
    )
    head, rest = text.split(">", 1)
    head += f' class="octdino" role="img" aria-label="{escape(description)}"'
    return f"{head}>{look}{rest}"


def save_svg(figure: Figure, path: Path, description: str) -> None:
    """Write the figure as SVG, atomically; `description` is its text for screen readers (aria-label)."""
    with replacing(path) as temporary:
        temporary.write_text(svg(figure, path.stem, description), encoding="utf-8")


def save_notice(words: str, path: Path) -> None:
    """Write an SVG that has a sentence in place of a plot; `notice_of` reads the sentence."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.6))
        figure.text(0.0, 0.5, textwrap.fill(words, 76), va="center")
        text = svg(figure, path.stem, words)
    text = text.replace('class="octdino"', 'class="octdino notice"', 1)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def notice_of(text: str) -> str:
    """Return the sentence of an SVG by `save_notice`; empty for a plot."""
    found = re.search(r'class="octdino notice" role="img" aria-label="([^"]*)"', text)
    return unescape(found[1]) if found else ""


def is_wide(text: str) -> bool:
    """Return whether an SVG is made for the whole width of a page."""
    found = re.search(r'width="([0-9.]+)pt"', text)
    return found is not None and float(found[1]) > 1.25 * 72 * WIDTH
