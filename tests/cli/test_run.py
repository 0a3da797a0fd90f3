"""`octdino run`, `presets` and `completion`: names of presets and profiles, and what is handed to Snakemake."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from octdino import cli, workflow_files
from octdino.cli.run_commands import CLUSTER_EXTRA, snakemake_command
from octdino.errors import UserError
from tests.cli.test_commands import ROOT, failing

START = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
OLIVES, PHANTOM = (str(ROOT / "config" / f"{name}.yaml") for name in ("olives", "phantom"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("", ""),
        ("-n --cores all", "-n --cores all"),
        ("--cores all --configfile olives", f"--cores all --configfile {OLIVES}"),
        ("--configfile=olives.yaml", f"--configfile={OLIVES}"),
        ("--configfile config/olives.yaml mine.yaml -n", f"--configfile {OLIVES} mine.yaml -n"),
        ("--configfiles olives phantom --cores 1 phantom", f"--configfiles {OLIVES} {PHANTOM} --cores 1 phantom"),
        ("--until phantom --config cohort={}", "--until phantom --config cohort={}"),
        ("--profile slurm phantom", f"--profile {ROOT}/profiles/slurm phantom"),
        ("--profile profiles/slurm/", f"--profile {ROOT}/profiles/slurm"),
        ("--profile unknown", "--profile unknown"),
        ("--version", "--version"),
        ("-- phantom", "-- phantom"),
    ],
)
def test_arguments_reach_snakemake_with_the_paths_of_presets_and_profiles(given: str, passed: str) -> None:
    Path("mine.yaml").touch()
    assert snakemake_command(given.split()) == [*START, *passed.split()]


def test_a_file_or_profile_of_the_users_own_comes_before_one_of_the_same_name() -> None:
    Path("olives").touch()
    Path("slurm").mkdir()
    Path("slurm/config.yaml").write_text("jobs: 4\n")
    command = snakemake_command(["--configfile", "olives", "--profile", "slurm"])
    assert command == [*START, "--configfile", "olives", "--profile", str(Path("slurm").absolute())]


@pytest.mark.parametrize("arguments", [["--profile", "lsf"], ["--executor", "lsf"], ["-e=lsf"], ["--profile", "site"]])
def test_a_missing_plugin_is_named_with_the_command_that_installs_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("site").mkdir()
    Path("site/config.yaml").write_text("jobs: 4\nexecutor: lsf  # as everywhere here\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.endswith("_lsf") else name)
    needs = "needs snakemake-executor-plugin-lsf, which is not installed; pip install 'octdino\\[cluster\\]'"
    with pytest.raises(UserError, match=needs):
        snakemake_command(arguments)


def test_the_plugins_of_the_extra_cluster_are_those_that_a_missing_plugin_is_installed_with() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cluster"]
    assert {f"snakemake-executor-plugin-{name}" for name in CLUSTER_EXTRA} == {each.split(">")[0] for each in extra}
    profiles = [yaml.safe_load(path.read_text()) for path in (ROOT / "profiles").glob("*/config.yaml")]
    assert {profile.get("executor") for profile in profiles} == {*CLUSTER_EXTRA, None}


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["run", "-n", "--configfile", "oliv.yaml"], "run: error: oliv.yaml: no such file, and no preset of that name; "
         "did you mean olives?"),
        (["presets", "slrm"], "presets: error: slrm: no such preset or profile; did you mean slurm?"),
        (["presets", "generic"], "presets: error: generic: is a folder with several files; give --out DIR to copy it"),
        (["presets", "--out", "x"], "presets: error: --out: needs the NAME of a preset or profile"),
        (["completion", "csh"], "completion: error: argument shell: invalid choice: 'csh' (choose from "),
    ],
)  # fmt: skip
def test_a_wrong_name_is_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, *argv).startswith(f"octdino {line}")


def test_run_replaces_the_process_and_keeps_snakemakes_exit_code(tmp_path: Path) -> None:
    Path("config.yaml").write_text("cohort: {nam: x}\n")
    done = subprocess.run([sys.executable, "-m", "octdino.cli", "run", "-n"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "octdino: error: config.yaml: cohort.nam: unknown key; did you mean name?" in done.stderr
    script = "import os; os.execv = lambda path, command: print('replaced', command[2]); from octdino import cli"
    called = [sys.executable, "-c", f"{script}; cli.main(['run', '-n'])"]
    assert subprocess.run(called, capture_output=True, text=True, check=True).stdout == "replaced snakemake\n"


def test_rules_find_the_programs_of_this_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its environment is not activated, as with `uv tool install` or a full path."""
    paths = []
    monkeypatch.setattr("os.execv", lambda *_: paths.append(shutil.which("octdino")))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert cli.main(["run", "-n"]) == 0
    assert paths == [str(Path(sys.executable).parent / "octdino")]


def test_presets_are_listed_with_a_sentence_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets"]) == 0
    text = capsys.readouterr().out
    names = {path.stem for path in (ROOT / "config").glob("*.yaml")} | {"generic", "lsf", "slurm"}
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  ")]
    assert {name for name, _ in lines} == names
    assert len(lines) == len(names), "a preset and a profile of one name"
    assert all(len(sentence) > 20 for _, sentence in lines)
    assert "  octdl             OCTDL (Kulyabin et al. 2024): 2,064 scans of seven diagnoses" in text


def test_a_preset_is_printed_and_a_profile_copied_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets", "olives"]) == 0
    assert capsys.readouterr().out == Path(OLIVES).read_text()
    assert cli.main(["presets", "slurm"]) == 0
    assert capsys.readouterr().out == (ROOT / "profiles/slurm/config.yaml").read_text()
    assert cli.main(["presets", "generic", "--out", "profiles/mine"]) == 0
    original = ROOT / "profiles/generic"
    assert {path.name for path in original.iterdir()} - {"__pycache__"} == {
        path.name for path in Path("profiles/mine").iterdir()
    }
    assert Path("profiles/mine/submit").read_text() == (original / "scheduler.py").read_text()
    assert Path("profiles/mine/submit").stat().st_mode & 0o111
    Path("mine.yaml").touch()
    assert cli.main(["presets", "olives", "--out", "mine.yaml"]) == 2
    assert "mine.yaml: exists already; expected a new name" in capsys.readouterr().err
    assert cli.main(["presets", "olives", "--out", "profiles/mine"]) == 2
    assert "profiles/mine: exists already; expected a new name" in capsys.readouterr().err


def test_a_copy_of_the_package_alone_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_files, "PACKAGE", tmp_path / "octdino")
    with pytest.raises(UserError, match="no workflow is installed with the package"):
        workflow_files.workflow_folder()
