"""The Snakemake workflow's own files, wherever octdino is installed: Snakefile, presets and profiles by name.

A wheel has them in `octdino/_workflow` (setup.py copies them); a checkout, and an editable install of one, at its top.
"""

import difflib
import re
import shutil
from pathlib import Path

from octdino.errors import UserError

PACKAGE = Path(__file__).parent


def workflow_folder() -> Path:
    """Return the folder with Snakefile, config.yaml, config/, profiles/, envs/ and workflow/.

    Raises:
        UserError: this installation has none, such as a copy of the package's folder alone.
    """
    for folder in (PACKAGE / "_workflow", PACKAGE.parent):
        if (folder / "workflow" / "Snakefile").is_file():
            return folder
    raise UserError(f"{PACKAGE}: no workflow is installed with the package; install octdino's wheel or its repository")


def presets() -> dict[str, Path]:
    """Return the file of each preset of config/ by its name, which is that of the file without `.yaml`."""
    return {path.stem: path for path in sorted((workflow_folder() / "config").glob("*.yaml"))}


def profiles() -> dict[str, Path]:
    """Return the folder of each profile by its name, but of `default`, which Snakemake loads by itself."""
    found = sorted((workflow_folder() / "profiles").glob("*/config.yaml"))
    return {path.parent.name: path.parent for path in found if path.parent.name != "default"}


def summary(path: Path) -> str:
    """Return the first sentence of the comment that begins a preset or a profile."""
    words = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# ") or line.startswith("#  "):  # the end of the comment, or a command in it
            break
        words.append(line.removeprefix("# ").strip())
    return re.split(r"\.(?: (?=\D)|$)", " ".join(words))[0]


def find(given: str, known: dict[str, Path], folder: str) -> Path | None:
    """Return the file or folder that is meant by `NAME`, `NAME.yaml` or `FOLDER/NAME`, or None."""
    name = given.removeprefix("./").removeprefix(f"{folder}/").removesuffix("/").removesuffix(".yaml")
    return known.get(name)


def preset_path(given: str) -> Path:
    """Return the path of `given`: that file if there is one, or else the preset of that name.

    Raises:
        UserError: there is neither.
    """
    if Path(given).is_file():
        return Path(given)
    known = presets()
    if found := find(given, known, "config"):
        return found
    raise UserError(f"{given}: no such file, and no preset of that name; {_choices(given, list(known))}")


def write_copy(given: str, out: Path) -> None:
    """Copy a preset to the file `out`, or the folder of a profile to the folder `out`, which must not exist.

    Raises:
        UserError: the name is unknown, or `out` exists.
    """
    source = named(given)
    if out.exists():
        raise UserError(f"{out}: exists already; expected a new name")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.part")
    if source.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)  # of a copy that was interrupted
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, temporary)
    temporary.rename(out)


def named(given: str) -> Path:
    """Return the file of a preset or the folder of a profile by its name.

    Raises:
        UserError: the name is unknown.
    """
    configurations, folders = presets(), profiles()
    found = find(given, configurations, "config") or find(given, folders, "profiles")
    if found is None:
        raise UserError(f"{given}: no such preset or profile; {_choices(given, [*configurations, *folders])}")
    return found


def _choices(given: str, names: list[str]) -> str:
    close = difflib.get_close_matches(Path(given).stem, names, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"
