"""Errors that the user can correct, exit codes, and how values and errors are shortened to one line."""

import errno
import os

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_PARTLY = 3  # done, but some files were refused
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130  # as shells have it: 128 + SIGINT

EXIT_CLOSED = 141  # 128 + SIGPIPE: the reader of the output has closed it

# Errors of a disk that arrive without a file's name, because they come from a write to an open file.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG})


class UserError(ValueError):
    """An error that the user can correct: one line with file, row, value and what is expected. Exit code 2."""


class StoppedEarly(Exception):  # noqa: N818  it is an outcome, not an error
    """Stopped by a signal or a time limit after saving; running the same command again resumes. Exit code 75."""


def short(value: object) -> str:
    """The representation of a value for an error message: on one line, at most 60 characters."""
    text = repr(value)
    return text if len(text) < 60 else text[:56] + "..." + text[-1]


def one_line(error: BaseException) -> str:
    """The message of an error on one line of at most 200 characters; the name of its class if it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def mistake(error: UserError | OSError) -> str | None:
    """The message of an error on one line; None for an error of the system that concerns neither a file nor a disk."""
    said = str(error)
    if isinstance(error, OSError):
        name = error.filename if error.filename2 is None else error.filename2
        if name is None and error.errno not in DISK_ERRORS:
            return None
        said = error.strerror or str(error)
        if isinstance(name, str | bytes | os.PathLike):
            said = f"{os.fsdecode(name)}: {said}"
    return " ".join(said.split())
