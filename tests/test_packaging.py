"""Dependencies, locks and the paths that the documentation names."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/reference/*.md"),
        ROOT / "config/README.md",
        ROOT / "benchmarks/README.md",
    ]
)
# The import's name where it differs from the distribution's.
DISTRIBUTIONS = {
    "iterstrat": "iterative-stratification",
    "PIL": "pillow",
    "mlflow": "mlflow-skinny",
    "pydantic_core": "pydantic",
    "sklearn": "scikit-learn",
    "snakemake_interface_logger_plugins": "snakemake-interface-logger-plugins",
    "yaml": "pyyaml",
}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[><=;\[ ]", requirement)[0].lower() for requirement in requirements}


def locked(lock: str) -> dict[str, set[str]]:
    """Versions per package of a lock file."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


def imported(folder: Path) -> set[str]:
    """Third-party distributions that the Python files below `folder` import, at their top or inside a function."""
    tops = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                tops.add(node.module.split(".")[0])
    return {DISTRIBUTIONS.get(top, top) for top in tops - sys.stdlib_module_names - {"octdino", "__future__"}}


def test_runtime_dependencies_are_what_the_package_imports() -> None:
    declared = names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    used = imported(ROOT / "octdino") | imported(ROOT / "snakemake_logger_plugin_octdino")
    used -= set().union(*(names(extras[name]) for name in extras if name != "dev"))
    assert used <= declared
    assert declared - used <= {"openpyxl", "snakemake"}, "pandas reads xlsx with openpyxl; snakemake runs the workflow"


def test_the_users_lock_is_a_part_of_the_developers_lock() -> None:
    users, developers = locked("requirements.lock"), locked("requirements-dev.lock")
    assert names(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cluster"]) <= users.keys()
    assert names(PROJECT["optional-dependencies"]["dev"]) <= developers.keys()
    assert names(PROJECT["optional-dependencies"]["docs"]) <= developers.keys()
    assert not names(PROJECT["optional-dependencies"]["dev"]) & users.keys()
    assert users.items() <= developers.items()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_have_hashes_and_name_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert text.count("--hash=sha256:") >= len(locked(lock))
    assert "//" not in text
    assert set(re.findall(r"--[a-z-]+", text)) == {"--hash"}


def test_packages_that_only_a_gpu_needs_are_in_the_lock() -> None:
    lines = (ROOT / "envs/gpu-only.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} <= locked("requirements.lock").keys()


def test_both_conda_environments_install_octdino_alike() -> None:
    """Snakemake takes one script per environment, by its name; a link would not survive a module from a git host."""
    one, other = (ROOT / f"envs/{name}.post-deploy.sh" for name in ("octdino", "tables"))
    assert one.read_bytes() == other.read_bytes()


def named_paths(text: str) -> Iterator[str]:
    """Paths of the repository in backticks, without those that stand for any name, such as `tests/test_NAME.py`."""
    tops = "octdino|tests|workflow|config|profiles|envs|docs|benchmarks|replication"
    for path in re.findall(rf"`((?:{tops})/(?:[\w./-]*\w/?)?)`", text):
        if not re.search("NAME|STAGE|ROOM", path):
            yield path


def links(text: str) -> Iterator[str]:
    yield from re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_and_links_in_the_documentation_exist(document: Path) -> None:
    text = document.read_text()
    missing = [path for path in named_paths(text) if not (ROOT / path).exists()]
    missing += [link for link in links(text) if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_and_commands_in_the_documentation_exist(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    assert set(re.findall(r"^(?:.* )?make ([a-z][a-z-]*)$", code, re.MULTILINE)) <= targets
    from octdino.cli.verbs import VERBS

    verbs = set(re.findall(r"^octdino ([a-z]+)\b", code, re.MULTILINE))
    assert verbs <= VERBS.keys()


def test_the_changelog_lists_every_renamed_setting() -> None:
    from octdino.config.settings_base import RENAMED

    text = (ROOT / "CHANGELOG.md").read_text()
    assert not [(old, new) for old, new in RENAMED.items() if f"`{old}`" not in text or f"`{new}`" not in text]


def test_the_containers_environment_needs_no_developers_package() -> None:
    """Every module of the package is imported without the developers' packages."""
    blocked = sorted({"skimage", "statsmodels", "tifffile", "lightly", "playwright", "mypy", "pytest", "hypothesis"})
    blocked += ["pydicom", "gdcm", "onnx", "onnxruntime", "onnxscript", "starlette", "uvicorn"]
    modules = sorted(
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in (ROOT / "octdino").rglob("*.py")
        if path.name != "__main__.py"
    )
    code = f"import sys, importlib\nfor n in {blocked!r}: sys.modules[n] = None\n"
    code += f"for n in {modules!r}: importlib.import_module(n)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
