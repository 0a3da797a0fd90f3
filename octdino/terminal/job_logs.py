"""Progress and errors of a job from its log file: the lines of octdino/progress.py, of the trainers, and of errors."""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

TAIL = 16_384  # bytes at the end of a log that are read
STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) [\w.]+: (.*)")
COUNTED = re.compile(
    r"(?P<what>.+): (?P<done>\d+) of (?P<total>\d+) (?P<unit>[^,]+), (?P<rate>[^ ]+)/s, (?P<left>.+) left"
)
EPOCH = re.compile(r"epoch (?P<done>\d+)/(?P<total>\d+) (?P<values>.*?) ?(?P<rate>\d+) img/s, .*, (?P<left>.+) left")
STEP = re.compile(r"step (?P<done>\d+)/(?P<total>\d+): (?P<score>\S+) on validation patients")
TRIED = re.compile(r"candidate (?P<done>\d+) of (?P<total>\d+), ")
SEARCHED = re.compile(r"\d+ labeled scans, (?P<count>\d+) candidates, up to \d+ steps")
ERROR = re.compile(r"octdino( [\w-]+)?: error: ")
STOPPED = re.compile(r"octdino [\w-]+: (?!error: )(?P<why>interrupted|stopped by .*)")
PERIOD = re.compile(r"(?:(\d+) h ?)?(?:(\d+) min ?)?(?:(\d+) s)?")
SCORES = {"loss": "loss", "knn_auroc": "kNN", "knn_accuracy": "kNN"}  # of an epoch; of two kNN scores the last


@dataclass
class LogTail:
    """Progress, error and last lines of a job, from the end of its log file.

    Attributes:
        state: where the job is: "epoch 3/24"; or its last line.
        scores: the latest "loss" and "kNN" of a pretraining, as written.
        rate: with its unit: "210 img/s".
        seconds_left: as estimated by the job when it wrote the line; None if unknown.
        at: when the log was last written to, seconds since the epoch.
        estimated_at: when the line with `seconds_left` was written.
        error: the line `octdino VERB: error: …`; empty: none.
        stopped: why the job saved and stopped; empty: it did not.
        last: the last lines that are not empty, at most ten.
    """

    state: str = ""
    rate: str = ""
    seconds_left: float | None = None
    at: float = 0.0
    estimated_at: float = 0.0
    error: str = ""
    stopped: str = ""
    last: list[str] = field(default_factory=list)
    scores: dict[str, str] = field(default_factory=dict)

    @property
    def progress(self) -> str:
        """The state with the scores."""
        return ", ".join([self.state, *(f"{name} {value}" for name, value in self.scores.items())])

    def left(self, now: float) -> float | None:
        """Return the seconds left at the time `now`; None if unknown."""
        return None if self.seconds_left is None else max(self.seconds_left - (now - self.estimated_at), 0.0)


def read_tail(path: Path) -> LogTail | None:
    """Read the end of a log file; None if there is no such file."""
    try:
        with path.open("rb") as file:
            at = os.fstat(file.fileno()).st_mtime  # before reading: what is written meanwhile is read the next time
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            text = file.read(TAIL).decode(errors="replace")
    except OSError:
        return None
    lines = text.splitlines()
    return parse_tail(lines[1:] if size > TAIL else lines, at)


def parse_tail(lines: list[str], at: float) -> LogTail:
    """Parse the last lines of a log, in their order.

    Args:
        lines: complete lines.
        at: when the log was last written to, seconds since the epoch.
    """
    tail = LogTail(at=at)
    candidates, tried = 0, 0
    for raw in lines:
        line = printable(raw)
        if not line:
            continue
        tail.last = [*tail.last[-9:], line]
        stamped = STAMP.fullmatch(line)
        message = stamped[2] if stamped else line
        if ERROR.match(line):
            tail.error = line
        elif stop := STOPPED.fullmatch(line):
            tail.stopped = stop["why"]
        elif match := EPOCH.fullmatch(message):
            tail.state = f"epoch {match['done']}/{match['total']}"
            tail.scores |= scores_of(match["values"].split())
            _time(tail, f"{match['rate']} img/s", match["left"], stamped)
        elif match := COUNTED.fullmatch(message):
            if not tail.state.startswith("epoch") or match["what"] != "pretraining":
                tail.state = f"{match['what']} {match['done']}/{match['total']} {match['unit']}"
            _time(tail, f"{match['rate']} {match['unit']}/s", match["left"], stamped)
        elif match := SEARCHED.fullmatch(message):
            candidates = int(match["count"])
        elif match := TRIED.match(message):
            candidates, tried = int(match["total"]), int(match["done"])
        elif match := STEP.fullmatch(message):
            search = f"candidate {tried + 1}/{candidates}, " if candidates > 1 else ""
            tail.state = f"{search}step {match['done']}/{match['total']}, validation {match['score']}"
        elif stamped and not tail.state.startswith(("epoch", "candidate", "step")):
            tail.state, tail.rate, tail.seconds_left = message, "", None
    return tail


def scores_of(words: list[str]) -> dict[str, str]:
    """Return the loss and the kNN score in "loss 3.41 knn_auroc 0.71 feature_std 0.03", by the names shown."""
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    return {shown: pairs[key] for key, shown in SCORES.items() if key in pairs}


def _time(tail: LogTail, rate: str, left: str, stamped: re.Match[str] | None) -> None:
    tail.rate, tail.seconds_left = rate, seconds_of(left)
    tail.estimated_at = tail.at
    if stamped:
        try:
            tail.estimated_at = min(time.mktime(time.strptime(stamped[1], "%Y-%m-%d %H:%M:%S")), tail.at)
        except (ValueError, OverflowError):
            tail.estimated_at = tail.at


def seconds_of(text: str) -> float | None:
    """Return the seconds in "2 h 5 min", "3 min 20 s" or "8 s", as octdino/progress.py writes them; None if other."""
    match = PERIOD.fullmatch(text.strip())
    if not text.strip() or match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def printable(text: str) -> str:
    """Return a line without control characters, so that nothing in a log moves the cursor of the terminal."""
    return "".join(c for c in text.replace("\t", " ") if c.isprintable()).strip()
