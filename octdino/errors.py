"""The two ways in which a command ends early that are not our fault."""

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_STOPPED = 75


class UserError(ValueError):
    """A mistake that the user can mend: one line naming file, row, value and what is expected. Exit code 2."""


class StoppedEarly(Exception):  # noqa: N818  it is an outcome, not an error
    """Stopped by a signal or a time limit after saving; running the same command again goes on. Exit code 75."""
