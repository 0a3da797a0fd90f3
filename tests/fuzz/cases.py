"""One case of the fuzz suite: a number says which verb runs on which damage, and what is wrong with how it ended."""

import base64
import contextlib
import io
import json
import logging
import os
import random
import re
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from octdino import cli
from octdino.config import (
    METHODS,
    AuditSettings,
    ClassifySettings,
    CohortSettings,
    EmbedSettings,
    EvaluateSettings,
    ExplainSettings,
    PhantomSettings,
    PretrainSettings,
    ReportSettings,
)
from octdino.errors import EXIT_PARTLY, EXIT_STOPPED, EXIT_USER
from tests.fuzz.copies import World
from tests.fuzz.mutations import TEXTS, VALUES, change_nested, mutate
from tests.fuzz.world import MODEL, VERBS, Verb, run

CHOSEN = os.environ.get("OCTDINO_FUZZ_VERBS", "").split()  # keys of VERBS; none: all
LONG = 6.0  # seconds: settings may ask for years of work, which is no fault; such a case is ended and counted
MOST_SECONDS = 45.0  # of a case whose settings ask for little, on a busy machine
MOST_MEMORY = 600  # MiB that a case may take beyond what the process has
OUTS = ["files/scans.csv", "files/scans.csv/x", "A" * 300, "nowhere/" + "b" * 200, "", "out", "/proc/none", "out/x\ny"]
SECTIONS = {
    "phantom": PhantomSettings, "cohort": CohortSettings, "pretrain": PretrainSettings, "classify": ClassifySettings,
    "embed": EmbedSettings,
    "evaluate": EvaluateSettings, "audit": AuditSettings, "explain": ExplainSettings, "report": ReportSettings,
}  # fmt: skip
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"><g/></svg>'
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+: ")
STATE = re.compile(r"(^|/)(state(-before)?(/.*)?|skipped\.csv)$")  # what resuming and giving up may change


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        what: the damage, in words.
        code: exit code; None where an exception came through.
        finding: what is wrong, the same text for the same fault; empty if nothing is.
        detail: for a person who arm_styles into it.
    """

    seed: int
    verb: str
    what: str
    code: int | None = None
    seconds: float = 0.0
    cpu: float = 0.0
    long: bool = False
    finding: str = ""
    detail: str = ""

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


class TooLong(BaseException):
    """The case has had its time."""


def run_case(seed: int, world: World) -> Outcome:
    """Damage the world, run the verb, look at how it ended, and mend the world."""
    rng = random.Random(seed)
    verbs = CHOSEN or list(VERBS)
    name = rng.choices(verbs, [VERBS[verb].weight for verb in verbs])[0]
    argv, what, patient = _damage(VERBS[name], rng, world)
    outcome = Outcome(seed, name, what)
    before = world.snapshot()
    _reset_peak()
    resting, begin, worked = _memory("VmRSS"), time.monotonic(), time.process_time()
    out, err = io.StringIO(), io.StringIO()
    try:
        with _quiet(out, err, rng), _limit(LONG if patient else MOST_SECONDS), _room(world.room):
            outcome.code = run(*argv)
    except TooLong:
        outcome.long = patient
        outcome.finding = "" if patient else f"{name}: runs for more than {MOST_SECONDS:g} s"
    except BaseException as error:
        outcome.finding, outcome.detail = _signature(error), traceback.format_exc()[-3000:]
    outcome.seconds, outcome.cpu = time.monotonic() - begin, time.process_time() - worked
    taken = _memory("VmHWM") - resting
    world.room = None
    after = world.snapshot()
    outcome.detail = outcome.detail or err.getvalue()[-3000:]
    if not outcome.finding and not outcome.long:
        outcome.finding = _wrong(outcome, err.getvalue(), world.differences(before, after), taken)
    world.mend(after)
    return outcome


def _damage(verb: Verb, rng: random.Random, world: World) -> tuple[list[str], str, bool]:
    """The command, the damage in words, and whether settings may ask for long work."""
    kinds = {"input": 70 if verb.inputs else 0, "settings": 13, "flags": 13, "disk": 4 if verb.inputs else 0}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    argv = verb.command()
    if kind == "disk":
        world.room = rng.choice([0, 100, 1000, 4096, 20_000])
        return argv, f"no file longer than {world.room} bytes can be written", False
    if kind == "settings" and verb.argv[0] in SECTIONS:
        values, said = _settings(SECTIONS[verb.argv[0]], rng)
        text = rng.choice([json.dumps, yaml.safe_dump])(values)
        Path("settings.yaml").write_text(text)
        return [*argv, "--settings", rng.choice(["settings.yaml", text])], f"settings {said}", True
    if kind == "flags" or not verb.inputs:
        flags = _flags(verb.argv[0], rng)
        if rng.random() < 0.1 and len(argv) > 1:
            argv[1] = rng.choice(TEXTS)
        return [*argv, *flags], f"flags {flags}", True
    files = world.files(verb.inputs)
    if not files:  # the verb leaves no state behind
        files = world.files(["results/c/cohort/*"])
    chosen = rng.sample(files, min(len(files), rng.choice([1, 1, 1, 2])))
    return argv, "; ".join(f"{path}: {mutate(Path(path), rng)}" for path in chosen), False


def _settings(section: Any, rng: random.Random) -> tuple[dict[str, Any], str]:
    """A section with one or two of its keys, one value changed."""
    defaults = section.model_validate({"name": "phantom"} if section is CohortSettings else {}).model_dump(mode="json")
    if section is PretrainSettings:
        kind = METHODS["dino"]
        defaults["variants"] = {"dino": kind.model_validate({"method": "dino"}).model_dump(mode="json")}
    keys = rng.sample(list(defaults), rng.choice([1, 2]))
    found, said = change_nested({key: defaults[key] for key in keys}, rng, VALUES)
    return found, said


def _flags(verb: str, rng: random.Random) -> list[str]:
    actions = next(iter(cli.build_parser()._subparsers._group_actions)).choices[verb]._actions
    named = [action for action in actions if action.option_strings and "--processes" not in action.option_strings]
    found: list[str] = []
    for action in rng.sample(named, min(len(named), rng.choice([1, 1, 2]))):
        flag = action.option_strings[0]
        if flag == "--out":
            found += [flag, rng.choice(OUTS)]
        elif flag == "--model":
            found += [flag, json.dumps(change_nested(json.loads(MODEL), rng, VALUES)[0])]
        elif flag == "--version" or action.nargs == 0:
            found.append(flag)
        else:
            count = action.nargs if isinstance(action.nargs, int) else 1
            found += [flag, *(rng.choice(TEXTS).replace("\0", "0") for _ in range(count))]
    return found


@contextlib.contextmanager
def _quiet(out: io.StringIO, err: io.StringIO, rng: random.Random) -> Iterator[None]:
    """Catch what is printed; most cases render no figures."""
    logging.getLogger().handlers.clear()  # the next command logs to where errors go now
    logging.getLogger("octdino").setLevel(logging.NOTSET)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _unrendered() if rng.random() < 0.9 else contextlib.nullcontext():
            yield


@contextlib.contextmanager
def _unrendered() -> Iterator[None]:
    """Figures are made and not rendered, which takes most of the time of a case and reads nothing."""
    from matplotlib.figure import Figure

    def save(_: Any, target: Any, *, format: str, **__: Any) -> None:  # noqa: A002  matplotlib's name
        content: Any = {"svg": SVG, "png": PNG}[format]
        target.write(content) if isinstance(content, str) else Path(target).write_bytes(content)

    before, Figure.savefig = Figure.savefig, save
    try:
        yield
    finally:
        Figure.savefig = before


@contextlib.contextmanager
def _room(size: int | None) -> Iterator[None]:
    """As on a full disk: the system refuses what would make a file longer than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 1)  # once more, should somebody have swallowed it
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _wrong(outcome: Outcome, said: str, changed: list[str], taken: float) -> str:
    """What is wrong with a case that ended with an exit code."""
    verb, lines = outcome.verb, said.splitlines()
    if outcome.code not in (0, EXIT_USER, EXIT_PARTLY, EXIT_STOPPED):
        return f"{verb}: exit code {outcome.code}"
    if "Traceback" in said:
        return f"{verb}: a traceback is printed, exit code {outcome.code}"
    if taken > MOST_MEMORY:
        return f"{verb}: takes {taken:.0f} MiB"
    if outcome.code == EXIT_USER:
        errors = [line for line in lines if not LOG_LINE.match(line)]
        if len(errors) != 1 or not re.match(r"octdino( [a-z]+)?: error: .", errors[0]):
            return f"{verb}: {len(errors)} lines for a user's mistake"
        full = " bytes can be written" in outcome.what  # what was finished before the disk was full may stay
        if odd := [path for path in changed if not STATE.search(path) and not full]:
            return f"{verb}: exit code 2 and {odd[0]} has changed"
    if any(".partial" in path or re.search(r"(^|/)\.[^/]*\.[0-9a-f]{8}\.", path) for path in changed):
        return f"{verb}: a temporary file is left"
    return ""


def _signature(error: BaseException) -> str:
    """The kind of an exception and where in our code it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/octdino/" in frame.filename]
    where = f"{frames[-1].filename.rpartition('/octdino/')[2]}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {where}"


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory(key: str) -> float:
    """MiB of this process."""
    with contextlib.suppress(OSError, StopIteration):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024
    return 0.0
