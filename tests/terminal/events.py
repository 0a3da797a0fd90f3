"""Records of Snakemake's logger, with the attributes that Snakemake 9 gives them."""

import io
import logging
from pathlib import Path
from typing import Any

from octdino.terminal.run_view import RunView
from octdino.terminal.screen import Screen

RUN = {"cohort": "phantom", "method": "dino", "backbone": "resnet18_narrow", "fold": "0", "seed": "0"}


class Utf8(io.StringIO):
    """A stream of known width, a terminal or none."""

    def __init__(self, terminal: bool = True) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def encoding(self) -> str:
        return "utf-8"


class Clock:
    """Seconds since the epoch, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def record(event: str | None, text: str = "", level: int = logging.INFO, **values: Any) -> logging.LogRecord:
    """A record of an event; None: a plain message."""
    made = logging.LogRecord("snakemake.logging", level, "x.py", 1, text, (), None)
    made.__dict__.update(values, event=event)
    return made


def job_info(
    number: int, rule: str, wildcards: dict[str, str] | None = None, log: Path | None = None, **more: Any
) -> logging.LogRecord:
    """The record of a job that starts."""
    values = {"jobid": number, "rule_name": rule, "wildcards": wildcards or {}, "log": [str(log)] if log else []}
    return record("job_info", **(values | {"local": True, "reason": "Missing output files: x"} | more))


def view(terminal: bool = True, **more: Any) -> tuple[RunView, Utf8, Clock]:
    """A view, what it writes to, and its clock."""
    stream, clock = Utf8(terminal), Clock()
    return RunView(Screen(stream, color=False, live=terminal), clock=clock, **more), stream, clock
