"""The ways in which a command ends early that are not our fault."""

import errno
import os

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130  # as shells have it: 128 + SIGINT

# Errors of a disk that arrive without a file's name, because they come from a write to an open file.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG})


class UserError(ValueError):
    """A mistake that the user can mend: one line naming file, row, value and what is expected. Exit code 2."""


class StoppedEarly(Exception):  # noqa: N818  it is an outcome, not an error
    """Stopped by a signal or a time limit after saving; running the same command again goes on. Exit code 75."""


def mistake(error: UserError | OSError) -> str | None:
    """One line for the person who can mend it; None for an error of the system that is about neither file nor disk."""
    said = str(error)
    if isinstance(error, OSError):
        name = error.filename if error.filename2 is None else error.filename2
        if name is None and error.errno not in DISK_ERRORS:
            return None
        said = error.strerror or str(error)
        if isinstance(name, str | bytes | os.PathLike):
            said = f"{os.fsdecode(name)}: {said}"
    return " ".join(said.split())
