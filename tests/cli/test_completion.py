"""Shells complete octdino's verbs, flags, choices, presets and files with the printed scripts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from octdino.cli.completion import completion_script

# As bash calls it at a tab: the words of the line so far, the last of which is completed.
BASH = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_octdino; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "octdino.bash"
    path.write_text(completion_script("bash"))
    return path


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    Path("scans.csv").touch()


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("pre", "predict presets pretrain"),
        ("pretrain dino --dino.proto", "--dino.prototypes"),
        ("pretrain dino --precision ", "auto bfloat16 float16 float32"),
        ("phantom --out sc", "scans"),
        ("cohort folder --root sc", "scans scans.csv"),
        ("cohort folder --table sc", "scans scans.csv"),
        ("predict model sc", "scans scans.csv"),
        ("run --rerun-i", "--rerun-incomplete"),
        ("run --cores all --configfile oct", "oct2017 octdl"),
        ("run --configfile olives sc", "scans scans.csv"),
        ("run --profile s", "scans scans.csv slurm"),
        ("presets oli", "olives olives-published"),
        ("completion ", "bash fish zsh"),
    ],
)
def test_bash_completes(line: str, completed: str, script: Path) -> None:
    words = ["octdino", *line.split(" ")]
    done = subprocess.run(["bash", "-c", BASH, "bash", str(script), *words], capture_output=True, text=True)
    assert sorted(set(done.stdout.split())) == completed.split(), done.stderr


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("octdino pre", "predict presets pretrain"),
        ("octdino pretrain dino --precision ", "auto bfloat16 float16 float32"),
        ("octdino run --configfile oct", "oct2017 octdl"),
    ],
)
@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish_completes(line: str, completed: str, tmp_path: Path) -> None:
    path = tmp_path / "completions"
    path.write_text(completion_script("fish"))
    done = subprocess.run(["fish", "-c", f"source {path}; complete -C '{line}'"], capture_output=True, text=True)
    words = [row.split("\t")[0] for row in done.stdout.splitlines()]
    assert sorted(set(words)) == completed.split(), done.stderr


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_loads_the_script_for_octdino(tmp_path: Path) -> None:
    (tmp_path / "_octdino").write_text(completion_script("zsh"))
    loads = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; autoload +X _octdino"
    done = subprocess.run(["zsh", "-fc", f"{loads}; print $_comps[octdino]"], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("_octdino", "")
