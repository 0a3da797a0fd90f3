"""Check of free disk space before a file is written."""

import shutil
from pathlib import Path

from octdino.errors import UserError

SPARE = 0.05  # share of a file's size that must be free in addition: headers, tables, concurrent writes


def check_disk(folder: Path, need: int, what: str, spare: float = 0.0) -> None:
    """Check that `need` bytes, and the share `spare` of them on top, fit below `folder`, which exists.

    Raises:
        UserError: they do not; with the bytes needed and free.
    """
    need += round(spare * need)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise UserError(f"{folder}: {amount(need)} needed for {what}, {amount(free)} free")


def amount(count: int) -> str:
    """Format a number of bytes, such as 32.7 GB."""
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if count >= 1000**power:
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count} bytes"
