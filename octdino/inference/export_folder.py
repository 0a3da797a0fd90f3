"""The folder of an export: complete under its name or not there, and never in place of another command's files."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from octdino import __version__
from octdino.data.atomic_files import read_json
from octdino.data.file_hash import sha256_of
from octdino.errors import UserError

RECORD = "export.json"


@contextmanager
def export_folder(out: Path, to: str, source: dict[str, str]) -> Iterator[Path]:
    """Context manager for writing a folder: a temporary one beside `out`, which becomes `out` if no error occurs.

    RECORD, with the SHA-256 of each file, is added at the end. An earlier export at `out` is replaced.

    Args:
        to: what is exported to, for RECORD.
        source: SHA-256 of the model's files of weights, for RECORD.

    Raises:
        UserError: `out` contains something else than an unchanged export, or cannot be written.
    """
    place = out.resolve()  # a symbolic link stays, and `.` has a name
    earlier = _check_replaceable(place, out)
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        record = {"to": to, "octdino": __version__, "source": source, "files": files}
        (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for name in files:
            shutil.copymode(temporary / RECORD, temporary / name)  # safetensors makes files that only the owner reads
        _exchange(temporary, place, earlier)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(temporary: Path, place: Path, earlier: bool) -> None:
    """Rename the new folder to `place`; an earlier export is moved away first, and comes back if that fails."""
    if not earlier:
        temporary.rename(place)  # also over an empty folder
        return
    old = temporary.with_name(f"{temporary.name}-old")
    place.rename(old)
    try:
        temporary.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(place: Path, out: Path) -> bool:
    """Return whether `place` is an earlier export; False: there is nothing, or an empty folder.

    Raises:
        UserError: it has a file that no export wrote, or that was changed since.
    """
    if not place.exists() or not os.listdir(place):  # noqa: PTH208  the shortest way to "empty"
        return False
    wanted = "expected a new or empty folder, or an unchanged export"
    if not (place / RECORD).is_file():
        raise UserError(f"{out}: has files and no {RECORD}, so another command wrote them; {wanted}")
    files = read_json(place / RECORD, "export").get("files")
    for path in sorted(place.iterdir()):
        if path.name == RECORD:
            continue
        if not isinstance(files, dict) or path.name not in files:
            raise UserError(f"{path}: no file of the export in this folder; {wanted}")
        if not path.is_file() or sha256_of(path) != files[path.name]:
            raise UserError(f"{path}: was changed since it was exported; {wanted}")
    return True
