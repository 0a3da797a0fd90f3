"""A terminal that understands what the view writes: text, newlines, cursor up, erase below, colors."""

import re
import unicodedata

CODE = re.compile(r"\x1b\[(\d*(?:;\d+)*)([A-Za-z])")


class Terminal:
    """A screen of unlimited height; wide lines wrap, as in a terminal of `columns`."""

    def __init__(self, columns: int = 80) -> None:
        self.columns, self.row, self.column = columns, 0, 0
        self.cells: list[list[str]] = [[]]

    def write(self, text: str) -> "Terminal":
        """Take output in; raises ValueError for a code that the view should not need."""
        at = 0
        while at < len(text):
            if code := CODE.match(text, at):
                self._obey(code[1], code[2])
                at = code.end()
                continue
            if text[at] == "\n":
                self.row, self.column = self.row + 1, 0  # the system sends \r with it
            elif text[at] == "\r":
                self.column = 0
            elif unicodedata.combining(text[at]) == 0:
                self._put(text[at])
            at += 1
        return self

    def _obey(self, number: str, kind: str) -> None:
        if kind == "A":
            self.row = max(self.row - int(number or 1), 0)
        elif kind == "J" and number in ("", "0"):
            del self.cells[self.row + 1 :]
            self.cells[self.row : self.row + 1] = (
                [self.cells[self.row][: self.column]] if self.row < len(self.cells) else []
            )
        elif kind != "m":
            raise ValueError(f"code {number}{kind}")

    def _put(self, character: str) -> None:
        if self.column >= self.columns:
            self.row, self.column = self.row + 1, 0
        while len(self.cells) <= self.row:
            self.cells.append([])
        line = self.cells[self.row]
        line.extend(" " * (self.column - len(line)))
        line[self.column : self.column + 1] = [character]
        self.column += 1

    def lines(self) -> list[str]:
        """The lines on the screen, without those at its end that are empty."""
        return "\n".join("".join(line).rstrip() for line in self.cells).rstrip("\n").split("\n")
