"""Whoever reads the output may close it, and the disk below it may be full."""

import subprocess
import sys
from pathlib import Path

import pytest

from octdino import cli

VERBS = [["schema"], ["schema", "--defaults"], ["--help"], ["pretrain", "--help"], ["--version"], ["watch", "."]]


@pytest.mark.parametrize("argv", VERBS, ids=" ".join)
def test_a_closed_pipe_ends_a_verb_quietly(argv: list[str]) -> None:
    """As SIGPIPE ends the programs of coreutils: exit code 141 in a shell, no word."""
    process = subprocess.Popen(
        [sys.executable, "-m", "octdino.cli", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before it writes: it imports for longer
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_below_the_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "octdino.cli", "watch", "."], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "octdino watch: error: No space left on device\n"


def test_a_broken_pipe_that_is_not_the_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> int:
        """Fail."""
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr("octdino.cli.entry.VERBS", {"watch": (lambda parser: None, fails)})
    with pytest.raises(BrokenPipeError, match="of a worker"):
        cli.main(["watch"])
