import logging
import sys

import pytest

import octdino.progress
from octdino.progress import duration, progress


def test_items_pass_through_and_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(progress(iter("abc"), 3, "reading scans", "scan")) == ["a", "b", "c"]
    assert "reading scans: 3 scans in 0 s" in caplog.text


def test_lines_with_rate_and_time_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(octdino.progress.time, "monotonic", lambda: float(next(clock)))
    list(progress(range(6), 6, "reading scans", "scan"))
    assert "reading scans: 2 of 6 scans, 0.2/s, 20 s left" in caplog.text
    assert len(caplog.records) == 4  # every 10 s, and the end


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), 3, "reading scans", "scan")) == [0, 1, 2]
    assert "reading scans: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words
