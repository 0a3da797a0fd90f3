"""The wheel and the source distribution: what is in them, and the workflow runs from an installed wheel."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from octdino import __version__

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
WORKFLOW = ("Snakefile", "config.yaml", "config", "envs", "profiles", "workflow")


def tracked(*below: str) -> set[str]:
    """The files that the repository has, without what is left of running it."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "ls-files", "-z", *below], cwd=ROOT, capture_output=True, text=True, check=True)
        return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    pytest.skip("no git: which files are the repository's is unknown")


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a wheel or sdist of a copy of the sources; without a network, by the setuptools that is installed."""
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(out)], cwd=source, check=True, capture_output=True
    )
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked():
        copy = folder / "sources" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy, follow_symlinks=False)
    return build("sdist", folder / "sources", folder / "dist")


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """As installers do: the wheel of the unpacked source distribution."""
    folder = sdist.parents[1] / "unpacked"
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / f"octdino-{__version__}", sdist.parents[1] / "wheel")


def test_the_source_distribution_is_the_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        names = {name for name in names if not archive.getmember(f"octdino-{__version__}/{name}").isdir()}
    left_out = {name for name in tracked() if name.startswith((".github/", ".git", ".snakemake-workflow-catalog"))}
    made = {name for name in names if name.startswith("octdino.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - made == tracked() - left_out


def test_the_wheel_is_the_package_and_the_workflow(wheel: Path) -> None:
    assert wheel.name == f"octdino-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        for name in tracked(*WORKFLOW):
            assert archive.read(f"octdino/_workflow/{name}") == (ROOT / name).read_bytes(), name
    names = {name for name in entries if not name.startswith(f"octdino-{__version__}.dist-info/")}
    assert names == tracked("octdino", "snakemake_logger_plugin_octdino") | {
        f"octdino/_workflow/{name}" for name in tracked(*WORKFLOW)
    }
    submit = entries["octdino/_workflow/profiles/generic/submit"]
    assert submit.external_attr >> 16 & 0o111, "programs stay executable"


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The programs of a fresh environment with the wheel; its dependencies are those of the present one."""
    folder = wheel.parents[1] / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for path in (site / "octdino/_workflow/profiles/generic").iterdir():
        path.chmod(0o755)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = folder / "bin" / "octdino"
    program.write_text(f"#!{folder}/bin/python\nimport sys\nfrom octdino.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return program


def octdino(program: Path, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program, which is not on the PATH, in a folder away from the checkout."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run([str(program), *args], cwd=folder, env=env, capture_output=True, text=True, timeout=600)


def test_an_installed_wheel_runs_the_workflow_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert octdino(installed, tmp_path, "--version").stdout == f"octdino {__version__}\n"
    few = ("--config", "cohort={phantom: {patients: 8, visits: 2, slices: 1}}")
    dry = octdino(installed, tmp_path, "run", "-n", *few)
    assert dry.returncode == 0, dry.stderr
    assert re.search(r"^classify +\d+  its results are missing", dry.stdout + dry.stderr, re.MULTILINE)
    assert "site-packages/octdino/_workflow/profiles/default" in dry.stderr, "the default profile applies"
    done = octdino(installed, tmp_path, "run", "--cores", "1", *few, "--until", "phantom")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "results/phantom").rglob("*.png"))


def test_an_installed_wheel_has_presets_and_refuses_a_wrong_one(installed: Path, tmp_path: Path) -> None:
    copied = octdino(installed, tmp_path, "presets", "olives", "--out", "mine.yaml")
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "mine.yaml").read_text() == (ROOT / "config/olives.yaml").read_text()
    refused = octdino(installed, tmp_path, "run", "-n", "--configfile", "olives")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("octdino: error: cohort.root: no such folder:")


@pytest.mark.parametrize("name", ["octdino", "tables"])
def test_conda_environments_get_octdino_from_an_installed_wheel(name: str, installed: Path, tmp_path: Path) -> None:
    """Snakemake runs the script in the new environment, for which a venv stands here."""
    workflow = next(installed.parents[1].glob("lib/python*/site-packages/octdino/_workflow"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "new")], check=True)
    (site,) = tmp_path.glob("new/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {"PATH": f"{tmp_path}/new/bin:/usr/bin:/bin", "OCTDINO_SOURCE": str(workflow)}
    subprocess.run(["bash", str(workflow / f"envs/{name}.post-deploy.sh")], env=env, check=True)
    assert octdino(tmp_path / "new/bin/octdino", tmp_path, "--version").stdout == f"octdino {__version__}\n"
    listed = 'from importlib.metadata import version; import octdino; print(version("octdino"), octdino.__file__)'
    done = subprocess.run([tmp_path / "new/bin/python", "-c", listed], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{__version__} {site}/octdino/__init__.py\n"
