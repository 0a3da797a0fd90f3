"""Lines that stay, and a region that is redrawn, on terminals of several widths."""

import io

import pytest

from octdino.terminal.screen import Screen, columns, cut, width_of
from tests.terminal.emulator import Terminal
from tests.terminal.events import Utf8


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_of_the_region_wraps(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Utf8()
    screen = Screen(stream, color=False, live=True)
    monkeypatch.setattr(screen, "size", lambda: (width, 24))
    for number in range(3):
        screen.draw([f"{number} " + "x" * 100, "漢字" * 40])
    shown = Terminal(width).write(stream.getvalue()).lines()
    assert len(shown) == 2
    assert all(width_of(line) < width for line in screen.drawn)


def test_a_terminal_that_becomes_narrower_keeps_no_rest_of_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal wraps the long lines that are there; all of their rows are erased."""
    stream = Utf8()
    screen = Screen(stream, color=False, live=True)
    monkeypatch.setattr(screen, "size", lambda: (80, 24))
    screen.line("above")
    screen.draw(["x" * 60, "y" * 60])
    monkeypatch.setattr(screen, "size", lambda: (30, 24))
    narrow = Terminal(30).write(stream.getvalue())
    before = len(stream.getvalue())
    screen.draw(["new"])
    assert narrow.write(stream.getvalue()[before:]).lines() == ["above", "new"]


def test_a_stream_without_unicode_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Screen(stream).line("a … 24 → 30")
    assert stream.buffer.getvalue() == b"a ... 24 ? 30\n"


def test_cut_counts_wide_and_combining_characters() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 4) == "abc…"
    assert cut("漢字漢字", 5) == "漢字…"
    assert width_of("e\u0301") == 1
    assert cut("abc", 0) == ""


def test_columns_are_aligned_and_empty_ones_are_left_out() -> None:
    assert columns([["a", "", "1 s"], ["bb", "", "10 s"]], right=(2,)) == ["a    1 s", "bb  10 s"]
    assert columns([]) == []
