"""Atomic writing of files, and reading of small ones; errors of the file system are one line that names the file."""

import contextlib
import io
import json
import os
import uuid
from pathlib import Path
from typing import Any

from octdino.errors import UserError

MOST_BYTES = 100_000_000  # of a small file


class replacing:  # noqa: N801  reads as a verb: `with replacing(path) as temporary`
    """Context manager for an atomic write: a temporary file beside `path` that replaces it if no error occurs.

    Raises:
        UserError: the file cannot be written: disk full, read-only, no permission, a file where a folder is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_written(self.path, error) from error
        return self.temporary

    def __exit__(self, kind: object, error: BaseException | None = None, *_: object) -> None:
        try:
            if kind is None:
                self.temporary.replace(self.path)
        except OSError as refused:
            error = refused
        if error is not None or kind is not None:
            self._remove()
        if isinstance(error, OSError):
            raise _not_written(self.path, error) from error

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # its folder is gone, or read-only by now: the first error is what counts
            self.temporary.unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written: {error.strerror or error}")


class DeferringFile(io.FileIO):
    """A new file that reports a failed write only when `check` is called.

    For C libraries that do not handle a failed write: HDF5 can then not close the file, and the process ends in a
    segmentation fault at exit; torch hides the reason. They continue to write, and the file is discarded.

    Attributes:
        error: the error of the first failed write.
    """

    error: OSError | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        count = len(rest)
        try:
            while len(rest) and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return count

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the OSError of the first write that failed."""
        if self.error is not None:
            raise self.error


def check_out(out: Path, *, file: bool = False) -> None:
    """Check that the results of a command can be written to `out`, before hours of work; nothing is created.

    Args:
        out: a folder, which need not exist; a file if `file`.

    Raises:
        UserError: it is a file (a folder), below a file, or in a folder that cannot be written to.
        OSError: the path cannot be checked: the name is too long, a folder cannot be entered.
    """
    if file and out.is_dir():
        raise UserError(f"{out}: is a folder; expected the name of a file to write")
    folder = out.parent if file else out
    while not _is_there(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{out}: {folder} is no folder; expected one to write to")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{out}: {folder} cannot be written to: no permission, or a read-only file system")


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_text(path: Path, made_by: str) -> str:
    """Read the text of a small file.

    Args:
        made_by: the command that writes it, for messages.

    Raises:
        UserError: it is missing, cannot be read, or is not UTF-8.
    """
    if not path.is_file():  # nor a pipe, which would never end
        raise UserError(f"{path}: no such file; `octdino {made_by}` writes it")
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{path}: has {size} bytes, more than a small file of octdino ever has")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{path}: cannot be read: {said}") from None


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: as `read_text`, or the text is not valid JSON or not an object.
    """
    text = read_text(path, made_by)
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds {type(found).__name__}, expected a JSON object")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")
