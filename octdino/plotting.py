"""Plotting style of all figures: one color and marker per arm, SVG that is readable on a light and a dark page.

Figures are SVG with real text and no background. Ink is written as `currentColor`, which is black or white as the page
sets it. The same data give the same bytes.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib.figure import Figure

from octdino.config import Arm
from octdino.data.atomic_files import replacing

INK = "#0a0b0c"  # becomes currentColor
# Okabe & Ito's colors, moved towards medium lightness: each has a contrast of 3 to white and to near-black.
FIXED = {"scratch": "#858585", "imagenet": "#b8860b", "clinical": "#b565a7"}
POOL = (
    "#2684d0", "#d9631e", "#139c77", "#7a6fd6", "#cc1a40", "#6b8210", "#0d7380", "#806640", "#a67373", "#26a60d",
    "#a61ad9", "#736680",
)  # fmt: skip
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MODES: dict[str, tuple[str, str | tuple[int, tuple[int, ...]]]] = {
    "linear": ("o", "-"),
    "knn": ("^", (0, (3, 1, 1, 1))),
    "mlp": ("v", (0, (6, 1))),
    "finetune": ("s", (0, (5, 2))),
    "": ("D", (0, (1, 1))),
}
WIDTH = 4.8  # inches: two beside each other on a desk, one still readable on a phone


@dataclass(frozen=True)
class ArmStyle:
    """Color, marker and line style of an arm."""

    color: str
    marker: str
    dash: str | tuple[int, tuple[int, ...]]


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """Return the style per arm: color by init, marker and dash by mode; depends on the set of arms only."""
    inits = sorted({Arm.named(arm).init for arm in arms})
    colors = {}
    for index, init in enumerate(init for init in inits if init not in FIXED):
        colors[init] = POOL[index % len(POOL)]
    found = {}
    for arm in arms:
        init, mode = Arm.named(arm)
        found[arm] = ArmStyle(FIXED.get(init) or colors[init], *MODES.get(mode, MODES[""]))
    return found


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
