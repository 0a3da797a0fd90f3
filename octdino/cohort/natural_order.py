"""Order of paths in which 2 comes before 10."""

import re


def natural(text: str) -> list[tuple[int, str]]:
    """Return the sort key of a path: its whole numbers count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
