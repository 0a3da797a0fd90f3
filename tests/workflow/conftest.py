"""Real Snakemake in a folder of its own, with the real `octdino` or a stub of it."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DEFAULT_RUN = ROOT / "config.yaml"
FEW: dict[str, Any] = {  # few runs, for the stub
    "pretrain": {"methods": ["dino"]},
    "classify": {"arms": ["scratch-finetune", "dino-linear"], "fractions": [1.0]},
}


class Workflow:
    """One working directory; its config.yaml, if there is one, is laid over the built-in defaults."""

    programs: ClassVar[Path]  # those that start warm

    def __init__(self, folder: Path, stub: bool, snakefile: Path = ROOT / "Snakefile") -> None:
        self.folder = folder
        self.snakefile = snakefile
        path = f"{BIN}:{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        self.stub = folder / "bin"
        if stub:
            self.stub.mkdir()
            script = self.stub / "octdino"
            script.write_text(
                f'#!/bin/sh\nexec {sys.executable} -I -S {ROOT / "tests/workflow/octdino_stub.py"} "$@"\n'
            )
            script.chmod(0o755)
            self.env["PATH"] = f"{self.stub}:{path}"

    def configure(self, values: dict[str, Any]) -> None:
        """Write the working directory's own config.yaml."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values))

    def command(self, *args: str) -> list[str]:
        """The command line of Snakemake with `args`."""
        return [str(BIN / "snakemake"), "--snakefile", str(self.snakefile), "--directory", str(self.folder), *args]

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Snakemake with `args`, to its end; it and the commands of its jobs start warm."""
        return self._run_warm("snakemake", *self.command(*args)[1:], **env)

    def run_after(self, statement: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Snakemake with `args`, to its end, after a Python statement in its process."""
        text = f"import snakemake.cli\n{statement}\nsnakemake.cli.main({self.command(*args)[1:]!r})"
        return self._run_warm("warm-python", "-c", text)

    def _run_warm(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.stub}:{self.programs}:{self.env['PATH']}"
        return subprocess.run(
            command, cwd=ROOT, env={**self.env, "PATH": path, **env}, capture_output=True, text=True, timeout=600
        )

    def rules(self, *args: str) -> Counter[str]:
        """How often each rule would run; nothing is done."""
        return jobs(self.many([["-n", *args]])[0])

    def many(self, wanted: list[list[str]]) -> list[tuple[int, str]]:
        """Exit code and output of Snakemake with each of `wanted`, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda args: self.run(*args), wanted))
        return [(each.returncode, each.stdout + each.stderr) for each in done]

    def calls(self) -> list[str]:
        """The calls of the stub so far."""
        path = self.folder / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def jobs(done: tuple[int, str]) -> Counter[str]:
    """The jobs per rule in the exit code and output of a dry run, without `all`; the table is ours or Snakemake's."""
    code, output = done
    assert code == 0, output
    heading = r"(?:rule +jobs +(?:requested per job +)?why|job +count\n-+ +-+)"
    table = re.search(rf"^{heading}\n(.*?)\ntotal ", output, re.DOTALL | re.MULTILINE)
    assert table or "Nothing to be done" in output, output
    rows = [line.split()[:2] for line in table[1].splitlines()] if table else []
    return Counter({name: int(count) for name, count in rows if name != "all"})


@pytest.fixture(scope="session", autouse=True)
def warm(programs: Path) -> None:
    """Let all workflows run in the programs that start warm."""
    Workflow.programs = programs


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A finished default run, made by the stub; tests only make dry runs in it."""
    flow = Workflow(tmp_path_factory.mktemp("finished"), stub=True)
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    return flow


@pytest.fixture
def stubbed(tmp_path: Path) -> Workflow:
    """An empty working directory with the stub and few runs."""
    flow = Workflow(tmp_path, stub=True)
    flow.configure(FEW)
    return flow
