"""origin.json beside a cohort's tables: the files that it was made from, so that another cohort does not replace it.

Two cohorts with one `cohort.title` would have one folder below results/, and the second would silently make everything
again. The file has the folder, the table, and the sizes of some files: a folder that was moved, or in which files were
added, removed or edited, is the same cohort; one with other files is another.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octdino.data.atomic_files import read_json
from octdino.errors import UserError

if TYPE_CHECKING:  # the settings' own checks before a run import this file
    from octdino.config.cohort import CohortSettings

NAME = "origin.json"
SAMPLED = 64  # files whose sizes are recorded
SAME_SHARE = 0.5  # of them that the same cohort still has


def origin_text(settings: "CohortSettings", paths: Sequence[str]) -> str:
    """Return the content of origin.json.

    Args:
        paths: of the scans below root; those in archives and the B-scans of volumes stand for no file of their own.
    """
    root = settings.root
    files = {} if root is None or settings.name == "phantom" else _sizes(root, _spread(list(dict.fromkeys(paths))))
    if not files and root is not None and settings.name != "phantom":  # all in archives
        files = _sizes(root, sorted(path.name for path in root.iterdir())[:SAMPLED])
    origin = {"name": settings.name, "root": _absolute(root), "table": _absolute(settings.table_file), "files": files}
    return json.dumps(origin, indent=1, ensure_ascii=False) + "\n"


def check_origin(folder: Path, settings: "CohortSettings") -> None:
    """Check that results/{cohort} was made from the files that the settings name.

    Args:
        folder: results/{cohort}. Without origin.json in it nothing is checked.

    Raises:
        UserError: it was made from another kind of cohort, other files or another table.
    """
    path = folder / "cohort" / NAME
    if not path.is_file():
        return
    try:
        origin = read_json(path, "cohort")
    except UserError:
        return  # it only guards against a mistake
    if fault := _difference(origin, settings):
        raise UserError(
            f"{folder}: was made from {fault}. Another cohort needs another cohort.title; to replace this one, run "
            "with --forcerun cohort"
        )


def _difference(origin: dict[str, Any], settings: "CohortSettings") -> str | None:
    if origin.get("name") != settings.name:
        return f"cohort.name {origin.get('name')}, not {settings.name}"
    old, new = origin.get("root"), settings.root
    if settings.name == "phantom" or not isinstance(old, str) or new is None:
        return None
    if not _same(Path(old), new):
        files = origin.get("files")
        known = files if isinstance(files, dict) else {}
        kept = sum(_sizes(new, known).get(name) == size for name, size in known.items())
        if known and kept < SAME_SHARE * len(known):
            return f"the folder {old}, not from {_absolute(new)}, which has {kept} of {len(known)} of its files"
    table = origin.get("table")
    if isinstance(table, str) and settings.table_file and _differ(Path(table), settings.table_file):
        return f"the table {table}, not from {_absolute(settings.table_file)}"
    return None


def _differ(old: Path, new: Path) -> bool:
    """Whether both tables exist and are not the same; one that was renamed or moved is gone from its old place."""
    return not _same(old, new) and old.is_file() and new.is_file() and old.read_bytes() != new.read_bytes()


def _same(one: Path, other: Path) -> bool:
    return _absolute(one) == _absolute(other) or (one.exists() and other.exists() and one.samefile(other))


def _absolute(path: Path | None) -> str | None:
    return None if path is None else os.path.abspath(path)  # noqa: PTH100  without resolving links


def _spread(paths: list[str]) -> list[str]:
    return paths if len(paths) <= SAMPLED else [paths[i * len(paths) // SAMPLED] for i in range(SAMPLED)]


def _sizes(root: Path, names: Iterable[str]) -> dict[str, int]:
    """The sizes of the files among `names` below `root`."""
    found = {}
    for name in names:
        try:
            if (root / name).is_file():
                found[name] = (root / name).stat().st_size
        except (OSError, ValueError):
            continue
    return found
