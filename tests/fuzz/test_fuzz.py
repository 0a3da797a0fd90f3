"""Every verb on damaged inputs: exit code 0, 2, 3 or 75, one line, no traceback, earlier outputs as they were.

`make fuzz` runs OCTDINO_FUZZ_CASES cases from the number OCTDINO_FUZZ_SEED on, in OCTDINO_FUZZ_WORKERS processes;
OCTDINO_FUZZ_VERBS limits them to some of `tests.fuzz.world.VERBS`. A finding names its case;
`python -m tests.fuzz.worker NUMBER` runs it again.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.fuzz

CASES = int(os.environ.get("OCTDINO_FUZZ_CASES", "300"))
SEED = int(os.environ.get("OCTDINO_FUZZ_SEED", "0"))
WORKERS = int(os.environ.get("OCTDINO_FUZZ_WORKERS", str(len(os.sched_getaffinity(0)))))
SILENCE = 90.0  # seconds without a word after which a worker hangs in a library; longer than any case may take
STARTING = 300.0  # the same while it imports


class Worker:
    """One process of `tests.fuzz.worker`, started again after the case that ended it."""

    def __init__(self, number: int, pristine: Path, folder: Path) -> None:
        self.number, self.pristine, self.folder = number, pristine, folder
        self.next, self.end, self.starts = SEED + number, SEED + CASES, 0
        self.outcomes: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        self.starts += 1
        root = self.folder / f"copy-{self.number}-{self.starts}"
        arguments = [self.pristine, root, self.next, WORKERS, self.end]
        self.log = (self.folder / f"worker-{self.number}.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", "work", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=self.log, bufsize=0,
        )  # fmt: skip
        self.rest, self.running, self.heard, self.patience = b"", None, time.monotonic(), STARTING

    def read(self) -> bool:
        """Take in what it says; whether there may be more."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.heard = time.monotonic()
        for line in lines:
            word, _, said = line.decode().partition(" ")
            if word == "begin":
                self.running, self.patience = int(said), SILENCE
            else:
                self.outcomes.append(json.loads(said))
                self.running, self.next = None, self.outcomes[-1]["seed"] + WORKERS
        return bool(data)

    def ended(self, why: str) -> bool:
        """After its end; whether it was started again."""
        self.process.kill()
        code = self.process.wait()
        self.process.stdout.close()
        self.log.close()
        if self.next >= self.end:
            return False
        assert self.running is not None, f"a worker ended with {code} outside of a case: see {self.log.name}"
        why = why or f"the process ends with {code}"
        self.outcomes.append({"seed": self.running, "verb": "?", "what": "", "code": code, "seconds": 0.0, "cpu": 0.0,
                              "long": False, "finding": why, "detail": ""})  # fmt: skip
        self.next = self.running + WORKERS
        if self.next >= self.end:
            return False
        self.start()
        return True


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz") / "world"
    subprocess.run([sys.executable, "-m", "tests.fuzz.worker", "build", str(root)], check=True, capture_output=True)
    return root


def test_damaged_inputs_end_in_one_line(pristine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    workers = [Worker(number, pristine, tmp_path) for number in range(min(WORKERS, CASES))]
    selector = selectors.DefaultSelector()
    for worker in workers:
        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
    while selector.get_map():
        ready = {key.data for key, _ in selector.select(1.0)}
        for worker in {key.data for key in selector.get_map().values()}:
            hangs = worker not in ready and time.monotonic() - worker.heard > worker.patience
            if hangs or (worker in ready and not worker.read()):
                selector.unregister(worker.process.stdout)
                if worker.ended(f"says nothing for {worker.patience:g} s" if hangs else ""):
                    selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
    outcomes = [outcome for worker in workers for outcome in worker.outcomes]
    findings = report(outcomes, time.monotonic() - begin, capfd)
    assert len(outcomes) == CASES
    assert not findings


def report(outcomes: list[dict[str, Any]], seconds: float, capfd: pytest.CaptureFixture[str]) -> dict[str, list[int]]:
    """Print count, rate, exit codes and findings; the cases of each finding."""
    findings: dict[str, list[int]] = defaultdict(list)
    for outcome in outcomes:
        if outcome["finding"]:
            findings[outcome["finding"]].append(outcome["seed"])
    codes = Counter(str(outcome["code"]) for outcome in outcomes if not outcome["long"] and not outcome["finding"])
    verbs: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        verbs[outcome["verb"]].append(outcome["cpu"])
    with capfd.disabled():
        print(f"\n{len(outcomes)} cases from {SEED} on in {seconds:.0f} s, {len(outcomes) / seconds:.1f} a second")
        print("exit codes:", dict(codes), "asked for long work and were ended:", sum(o["long"] for o in outcomes))
        print(
            f"CPU seconds per case: {sum(outcome['cpu'] for outcome in outcomes) / len(outcomes):.2f};",
            {verb: f"{sum(t) / len(t):.2f} ({len(t)})" for verb, t in sorted(verbs.items())},
        )
        print(f"{len(findings)} findings", *(f"{len(cases)} x {text}: {cases[:5]}" for text, cases in findings.items()),
              sep="\n  ")  # fmt: skip
    if log := os.environ.get("OCTDINO_FUZZ_LOG"):
        Path(log).write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))
    return findings
