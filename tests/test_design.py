"""The layering of the design: data moves down the stages, and code knows only what lies below it."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from octdino.config import METHODS

PACKAGE = Path(__file__).parents[1] / "octdino"
STAGES = ("cohort", "pretrain", "embed", "classify", "evaluate", "audit", "explain", "report", "inference")
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """Stage, `cli` or the ground floor's module, of a dotted name below octdino."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file's syntax tree, parsed once for all tests."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> frozenset[str]:
    """The rooms of octdino that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            module = node.module or ""
            found |= {f"octdino.{alias.name}" for alias in node.names} if module == "octdino" else {module}
    return frozenset(room(module) for module in found if module.split(".")[0] == "octdino")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    others = imports(path) - {own}
    if own == "cli":
        return
    if path == PACKAGE / "__init__.py":  # octdino.load and octdino.results are shortcuts to it
        others -= {"inference"}
    assert "cli" not in others, "only people and the Snakefile call the commands"
    assert not others & set(STAGES), f"{own} imports {others & set(STAGES)}: what two stages need moves down"


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_cohorts_files_are_read_in_one_place(stage: str) -> None:
    """Manifest, splits and store go together: whoever reads one of them alone reads a stale one some day."""
    alone = {"MANIFEST", "SPLITS", "read_header", "read_images"}
    sources = ("octdino.data.schemas.csv_schemas", "octdino.data.store")
    for path in (PACKAGE / stage).rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and node.module in sources:
                assert not {alias.name for alias in node.names} & alone, f"{path}: use octdino.data.cohort_reader"


def test_every_stage_has_one_name_in_three_places() -> None:
    rules = {path.stem for path in (PACKAGE.parent / "workflow/rules").glob("*.smk")}
    packages = {path.name for path in PACKAGE.iterdir() if path.name in STAGES}
    assert rules == packages


def test_the_snakefile_knows_the_settings_and_the_stages_numbers_only() -> None:
    for path in (PACKAGE.parent / "workflow").rglob("*"):
        if path.suffix == ".smk" or path.name == "Snakefile":
            lines = [
                line.split()[1]
                for line in path.read_text().splitlines()
                if line.startswith(("from octdino", "import octdino"))
            ]
            beside = {f"octdino.{path.stem}" for path in PACKAGE.glob("snakemake_*.py")}
            assert set(lines) <= {"octdino", "octdino.config", "octdino.errors", *beside}


@pytest.mark.parametrize("module", ["octdino.config", "octdino.cli", "octdino.terminal.run_view"])
def test_nothing_heavy_is_imported_for_settings_and_help(module: str) -> None:
    heavy = ("torch", "timm", "pandas", "numpy", "sklearn", "monai", "matplotlib", "h5py")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("octdino.evaluate", "torch timm sklearn scipy.stats scipy.optimize"),
        ("octdino.report", "torch timm sklearn scipy.stats scipy.optimize scipy.interpolate"),
        ("octdino.audit.audit_verdict", "torch timm sklearn scipy matplotlib h5py"),
        ("octdino.classify.clinical", "torch timm matplotlib"),
        ("octdino.classify.train_arm", "torch timm sklearn scipy.stats matplotlib"),
    ],
)
def test_verbs_without_a_network_import_none(module: str, absent: str) -> None:
    """The import of torch takes as long as many of these jobs, that of scikit-learn half of it."""
    code = f"import sys, {module}; print([name for name in {absent!r}.split() if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("stage", ["pretrain", "training", "tracking", "augment", "models", "data"])
def test_training_imports_no_matplotlib(stage: str) -> None:
    """Its import takes as long as many a small run; pictures of a training are drawn without it."""
    for path in (PACKAGE / stage).rglob("*.py"):
        assert "plotting" not in imports(path), path
        for node in nodes(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "matplotlib" for name in names), path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300, "a file is read in one sitting"
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 55, f"{node.name}: {lines} lines; a function fits a screen"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_no_special_case(method: str) -> None:
    """Its name stands in its file, the registry and the defaults of settings; in prose it has capitals."""
    root = PACKAGE.parent
    code = [*FILES, root / "Snakefile", *(path for path in (root / "workflow").rglob("*") if path.is_file())]
    allowed = {"octdino/pretrain/methods", "octdino/config", "workflow/schemas"}
    for path in code:
        if any(str(path.relative_to(root)).startswith(place) for place in allowed) or path.suffix == ".pyc":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if f'"{method}' in line or f"'{method}" in line:
                raise AssertionError(f"{path}:{number}: {line.strip()}")


def test_only_methods_know_methods() -> None:
    """The loop finds a method by its name in the settings; nothing outside their folder imports one."""
    kinds = {f"octdino.pretrain.methods.{method}" for method in METHODS}
    for path in FILES:
        if path.parent.name != "methods":
            for node in nodes(path):
                assert not isinstance(node, ast.ImportFrom) or node.module not in kinds, path


def test_data_is_never_executed() -> None:
    """No pickle, and torch.load only with weights_only."""
    for path in FILES:
        text = path.read_text()
        assert "import pickle" not in text, path
        for node in nodes(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert said.get("weights_only") == "True" or said.get("allow_pickle") == "False", (
                    f"{path}:{node.lineno}"
                )
