"""A stream as a terminal: lines that stay, and a region at its end that is redrawn; tables cut to a width."""

import os
import unicodedata
from collections.abc import Sequence
from typing import TextIO

COLORS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
GAP = "  "  # between two columns


class Screen:
    """Writes to a stream: lines that stay, and on a terminal a region below them that is redrawn.

    The region is erased by moving the cursor up, which works in every terminal and in tmux; neither the alternate
    screen nor a hidden cursor is used, so that a killed process leaves the terminal as it was.

    Args:
        stream: stderr, or stdout.
        color: whether colors are allowed; the stream has to be a terminal, too.
        live: whether a region is drawn; None: where the stream is a terminal that can move its cursor.
    """

    def __init__(self, stream: TextIO, color: bool = True, live: bool | None = None) -> None:
        self.stream = stream
        terminal = is_terminal(stream)
        self.live = terminal if live is None else live
        self.color = color and terminal and "NO_COLOR" not in os.environ
        self.drawn: list[str] = []
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        self.unicode = encoding.startswith("utf")

    def size(self) -> tuple[int, int]:
        """Return (columns, lines) of the terminal; (80, 24) where they are unknown."""
        try:
            size = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError, AttributeError):
            return 80, 24
        return (size.columns or 80), (size.lines or 24)

    def width(self) -> int | None:
        """Return the width to which tables are cut: that of a terminal; None: not at all."""
        return self.size()[0] if is_terminal(self.stream) else None

    def line(self, text: str, color: str = "") -> None:
        """Write lines that stay, above the region."""
        self._write(self._erased() + self._painted(self.plain(text), color) + "\n" + self._region())

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the region by these lines, each cut to the width of the terminal."""
        width = self.size()[0]
        before, self.drawn = self._erased(), [cut(self.plain(line), width - 1) for line in lines]
        self._write(before + self._region())

    def clear(self) -> None:
        """Remove the region."""
        before, self.drawn = self._erased(), []
        self._write(before)

    def plain(self, text: str) -> str:
        """Return the text in the characters that the stream has."""
        return text if self.unicode else text.replace("…", "...").encode("ascii", "replace").decode()

    def _erased(self) -> str:
        """Return the codes that erase the region; lines wrap in a terminal that has become narrower."""
        if not self.drawn:
            return ""
        columns = self.size()[0]
        rows = sum(max(1, -(-width_of(line) // columns)) for line in self.drawn)
        return f"\r\033[{rows}A\033[J"

    def _region(self) -> str:
        if not self.drawn:
            return ""
        return "".join(
            self._painted(line, "dim" if n + 1 < len(self.drawn) else "bold") + "\n"
            for n, line in enumerate(self.drawn)
        )

    def _painted(self, text: str, color: str) -> str:
        return f"\033[{COLORS[color]}m{text}\033[0m" if self.color and color else text

    def _write(self, text: str) -> None:
        if text:
            self.stream.write(text)
            self.stream.flush()


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    try:
        return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    except (ValueError, AttributeError):  # closed
        return False


def width_of(text: str) -> int:
    """Return the columns that a text takes: none for combining characters, two for wide ones."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """Return a text of at most `width` columns, the end replaced by "…" if it is longer."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > max(width - 1, 0):
        text = text[:-1]
    return text + "…" if width > 0 else ""


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = (), width: int | None = None) -> list[str]:
    """Return rows of cells as lines with aligned columns.

    Args:
        rows: cells; all rows have the same number of them.
        right: numbers of the columns that are aligned at the right.
        width: of a line; of longer ones first the first column is cut, to half of the line, then the end.
    """
    if not rows:
        return []
    widths = [max(width_of(row[n]) for row in rows) for n in range(len(rows[0]))]
    if width is not None:
        others = sum(size + len(GAP) for size in widths[1:] if size)
        widths[0] = min(widths[0], max(width // 2, width - others))
        rows = [[cut(row[0], widths[0]), *row[1:]] for row in rows]
    lines = []
    for row in rows:
        cells = []
        for n, cell in enumerate(row):
            space = " " * (widths[n] - width_of(cell))
            cells.append(space + cell if n in right else cell + space)
        line = GAP.join(cell for cell, size in zip(cells, widths, strict=True) if size).rstrip()
        lines.append(line if width is None else cut(line, width))
    return lines
