"""The ways in which a command ends early that are not our fault."""

import errno
import os

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_STOPPED = 75

# Errors of a disk that arrive without a file's name, because they come from a write to an open file.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG})


class UserError(ValueError):
    """A mistake that the user can mend: one line naming file, row, value and what is expected. Exit code 2."""


class StoppedEarly(Exception):  # noqa: N818  it is an outcome, not an error
    """Stopped by a signal or a time limit after saving; running the same command again goes on. Exit code 75."""


def system_error(error: OSError) -> str | None:
    """The file and what the system says of it, in one line; None for an error that is about neither file nor disk."""
    said = error.strerror or str(error)
    name = error.filename2 if error.filename2 is not None else error.filename
    if isinstance(name, str | bytes | os.PathLike):
        return f"{os.fsdecode(name)}: {said}"
    return said if error.errno in DISK_ERRORS else None
