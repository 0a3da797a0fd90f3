"""Signals that stop training between two steps: SIGTERM, SIGINT or a time limit, in all processes together."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from octdino.training.distributed import any_rank


class Stopper:
    """Records SIGTERM, SIGINT and the time limit, to be checked by `asked` between two steps."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.reason: str | None = None
        self._deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes

    @contextmanager
    def listening(self) -> Iterator["Stopper"]:
        """Handle the signals inside the block only."""
        handlers = {s: signal.signal(s, self._caught) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _caught(self, number: int, _: FrameType | None) -> None:
        self.reason = signal.Signals(number).name

    def asked(self) -> str | None:
        """Return the reason to stop now, or None; the same step in all processes."""
        if self.reason is None and time.monotonic() > self._deadline:
            self.reason = "the time limit"
        if any_rank(self.reason is not None) and self.reason is None:
            self.reason = "another process's signal or time limit"
        return self.reason
