"""The container is built from what the repository pins."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.bare import __main__ as bare

ROOT = Path(__file__).parents[1]
CONTAINERFILE = (ROOT / "Containerfile").read_text().replace("\\\n", " ")


def test_it_sets_up_from_the_users_lock_and_carries_no_local_state() -> None:
    assert re.search(r"^RUN make setup\b", CONTAINERFILE, re.MULTILINE)
    rule = re.search(r"^\.venv/\.ready:(.*?)\n\n", (ROOT / "Makefile").read_text(), re.DOTALL | re.MULTILINE)
    assert rule
    assert "--require-hashes --requirement requirements.lock" in rule[1]
    assert "requirements-dev.lock" not in rule[1], "the container holds what users need"
    ignored = (ROOT / ".containerignore").read_text().split()
    assert {".venv", ".git", "results", "logs", ".snakemake"} <= set(ignored)


def test_its_debian_has_the_python_that_is_needed() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert needed == ">=3.11", "Debian 12 has 3.11; a newer one needs a newer base"
    assert "FROM debian:bookworm" in CONTAINERFILE


def test_everything_that_ci_installs_for_a_run_is_there() -> None:
    (packages,) = re.findall(r"apt-get install -y --no-install-recommends ([^&]+)", CONTAINERFILE)
    assert {"graphviz", "make", "python3", "python3-venv"} <= set(packages.split())


@pytest.mark.parametrize(
    ("user", "debootstrap", "reason"),
    [
        (1000, "/usr/sbin/debootstrap", "chroot needs root"),
        (0, None, "no debootstrap"),
        (0, "/usr/sbin/debootstrap", "no Debian with apt-get"),
    ],
)
def test_bare_installation_that_cannot_run_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
    debootstrap: str | None,
    reason: str,
) -> None:
    commands = []

    def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[0])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("os.getuid", lambda: user)
    monkeypatch.setattr("shutil.which", lambda *_, **__: debootstrap)
    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setattr(sys, "argv", ["tests.bare", "--root", str(tmp_path)])
    assert bare.main() == 2
    assert reason in capsys.readouterr().err
    assert commands == (["debootstrap"] if reason.startswith("no Debian") else [])
