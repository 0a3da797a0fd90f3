"""Learning curves of a running training as SVG: one panel per measure, one line per training.

Written after each epoch, so without matplotlib, whose import and drawing take as long as many an epoch does.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from octdino.data.atomic_files import replacing

Rows = Sequence[Mapping[str, float]]

PANEL, LEFT, TOP, GAP = (300, 104), 50, 30, 46  # px: width and height of a plot, margins, space below a plot
HEAD, LEGEND = 16, 16  # px, line of the caption and of each entry of the legend
MOST_POINTS = 200  # of a line: more are not visible
PADDING = 0.06  # of an axis, beyond the values, as a share of their range
# As in octdino/plotting.py, which imports matplotlib: dark on a light page, light on a dark one.
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LOOK = (
    "<style>svg.octdino{color:#2b2b2b}@media screen and (prefers-color-scheme:dark){svg.octdino{color:#d4d4d4}}</style>"
)
SHARE = 0.005  # of a training's time, at most, for drawing
COLORS = ("#2684d0", "#d9631e", "#139c77", "#7a6fd6", "#cc1a40", "#6b8210")  # readable on white and on near-black
LOGARITHMIC = 8  # ratio of the largest to the smallest value from which a loss has a logarithmic axis


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        column: of the history.
        title: shown above it.
        per: column by which the values are divided, for shares.
        share: the axis is that of a share, 0 to 1.
        logarithmic: the axis may be logarithmic.
    """

    column: str
    title: str
    per: str | None = None
    share: bool = False
    logarithmic: bool = False


class LearningCurves:
    """Keeps `path` up to date, within a small share of the training's time.

    Args:
        path: the SVG file.
        panels: those whose column a history lacks are left out.
        x: column of the horizontal axis.
    """

    def __init__(self, path: Path, panels: Sequence[Panel], x: str) -> None:
        self.path, self._panels, self._x = path, panels, x
        self._cost = self._drawn_at = 0.0

    def update(self, lines: Mapping[str, Rows], *, last: bool = False) -> bool:
        """Draw the histories by name; return whether it was done: it is not if that was done too recently.

        Args:
            last: draw in any case.
        """
        begin = time.monotonic()
        if not last and begin - self._drawn_at < self._cost / SHARE:
            return False
        text = draw_curves(lines, self._panels, self._x)
        with replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._drawn_at = time.monotonic()
        self._cost = self._drawn_at - begin
        return True


def draw_curves(lines: Mapping[str, Rows], panels: Sequence[Panel], x: str) -> str:
    """Return the SVG of histories by name, two panels per row."""
    points = {
        panel: {name: values for name, rows in lines.items() if (values := _points(rows, panel, x))} for panel in panels
    }
    shown = [panel for panel in panels if points[panel]]
    down = math.ceil(len(shown) / 2)
    right = max((row[x] for rows in lines.values() for row in rows), default=1.0)
    step = (PANEL[0] + LEFT + 24, PANEL[1] + GAP)
    legend = list(lines) if len(lines) > 1 else []
    height = HEAD + TOP + down * step[1] + LEGEND * len(legend)
    parts = [
        _panel(panel, points[panel], list(lines), x, right, (LEFT + i % 2 * step[0], HEAD + TOP + i // 2 * step[1]))
        for i, panel in enumerate(shown)
    ]
    for index, name in enumerate(legend):
        y = HEAD + TOP + down * step[1] + LEGEND * index
        parts.append(
            f'<path d="M{LEFT} {y - 4}h24" stroke="{COLORS[index % len(COLORS)]}" stroke-width="2" fill="none"/>'
            f'<text x="{LEFT + 30}" y="{y}">{escape(name)}</text>'
        )
    caption = f"{', '.join(lines)}, after {x} {right:g}" if len(lines) == 1 else f"up to {x} {right:g}"
    titles = ", ".join(panel.title for panel in shown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * step[0]} {height}" width="{2 * step[0]}" '
        f'height="{height}" class="octdino" role="img" aria-label="{escape(titles)} by {x}" font-family="{FONT}" '
        f'font-size="11" fill="currentColor">{LOOK}<text x="{LEFT}" y="{HEAD}">{escape(caption)}</text>'
        f"{''.join(parts)}</svg>\n"
    )


def _points(rows: Rows, panel: Panel, x: str) -> list[tuple[float, float]]:
    """Return the finite points of a line, at most MOST_POINTS, the lowest and the highest of each stretch kept."""
    points = [
        (row[x], row[panel.column] / (row[panel.per] if panel.per else 1.0))
        for row in rows
        if panel.column in row and (panel.per is None or row.get(panel.per))
    ]
    points = [point for point in points if math.isfinite(point[1])]
    if len(points) <= MOST_POINTS:
        return points
    width = len(points) / (MOST_POINTS // 2 - 1)
    stretches = (points[int(i * width) : int((i + 1) * width)] for i in range(MOST_POINTS // 2 - 1))
    ends = {0, len(points) - 1}
    kept = {point for part in stretches for point in (min(part, key=_height), max(part, key=_height))}
    return sorted(kept | {points[index] for index in ends})


def _height(point: tuple[float, float]) -> float:
    return point[1]


def _panel(
    panel: Panel,
    points: Mapping[str, Sequence[tuple[float, float]]],
    order: Sequence[str],
    x: str,
    right: float,
    at: tuple[int, int],
) -> str:
    """Return one plot with its top left corner `at`, in px."""
    (width, height), (left, top) = PANEL, at
    values = [y for line in points.values() for _, y in line]
    low, high = min(values), max(values)
    bend = math.log if panel.logarithmic and low > 0 and high > LOGARITHMIC * low else float
    if panel.share:
        low, high = min(low, 0.0), max(high, 1.0)
    elif high - low < 1e-9 * max(abs(high), 1e-30):
        low, high = low - (abs(low) / 10 or 0.1), high + (abs(high) / 10 or 0.1)
    elif bend is float:
        low, high = low - PADDING * (high - low), high + PADDING * (high - low)

    def place(px: float, py: float) -> str:
        share = (bend(py) - bend(low)) / (bend(high) - bend(low))
        return f"{left + width * px / right:.1f} {top + height * (1 - share):.1f}"

    parts = [f'<text x="{left}" y="{top - 9}" font-weight="600">{escape(panel.title)}</text>']
    for value in _ticks(low, high, bend is math.log):
        y = float(place(0, value).split()[1])
        parts.append(f'<path d="M{left} {y}h{width}" stroke="currentColor" stroke-opacity=".15"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{_number(value)}</text>')
    for name, line in points.items():
        color = COLORS[order.index(name) % len(COLORS)]
        path = "M" + "L".join(place(*point) for point in line)
        parts.append(f'<path d="{path}" stroke="{color}" stroke-width="1.6" stroke-linejoin="round" fill="none"/>')
        end = place(*line[-1]).split()
        parts.append(f'<circle cx="{end[0]}" cy="{end[1]}" r="2.5" fill="{color}"/>')
    parts.append(f'<path d="M{left} {top + height}h{width}" stroke="currentColor"/>')
    parts.append(f'<text x="{left}" y="{top + height + 14}">0</text>')
    parts.append(f'<text x="{left + width}" y="{top + height + 14}" text-anchor="end">{x} {right:g}</text>')
    if len(points) == 1:
        (line,) = points.values()
        parts.append(f'<text x="{left + width}" y="{top - 9}" text-anchor="end">{_number(line[-1][1])}</text>')
    return "".join(parts)


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Return two to five round numbers between the ends of an axis; its ends if there are none."""
    if logarithmic:
        tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [digit * 10.0**ten for ten in tens for digit in (1, 2, 5) if low <= digit * 10.0**ten <= high]
        return ticks[:: math.ceil(len(ticks) / 5)] or [low, high]
    size = 10 ** math.floor(math.log10((high - low) / 2))
    step = next(size * factor for factor in (1, 2, 5, 10) if (high - low) / (size * factor) <= 4)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.4g}"
