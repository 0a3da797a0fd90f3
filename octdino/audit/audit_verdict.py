"""Verdict on an audit: passed, or the first open finding as an error; reads findings.csv only.

No torch, scikit-learn or matplotlib is imported: the job takes as long as its imports.
"""

from pathlib import Path

import pandas as pd

from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import FINDINGS
from octdino.errors import UserError

NOT_CHECKABLE = "not checkable"


def unchecked_line(table: pd.DataFrame) -> str:
    """Return one line that names the checks that could not be run, and why; empty if there are none.

    Args:
        table: findings.csv.
    """
    found = table[table["state"] == NOT_CHECKABLE]
    parts = [f"{', '.join(part['check'])} ({why})" for why, part in found.groupby("detail", sort=False)]
    return f"not checkable: {'; '.join(parts)}" if parts else ""


def verdict(findings: Path) -> str:
    """Return one line if no finding is open: that the audit passed, and which checks could not be run.

    Raises:
        UserError: a finding is open; names the first and counts the rest.
    """
    table = read_table(findings, FINDINGS)
    open_ones = table[table["state"] == "open"]
    if len(open_ones):
        first, others = open_ones.iloc[0], len(open_ones) - 1
        raise UserError(
            f"{findings}: {first['check']}, {first['where']}: {first['detail']}"
            + (f"; and {others} more" if others else "")
            + "; correct it, or name the check in audit.acknowledged; the page shows all"
        )
    line = unchecked_line(table)
    return f"passed: no finding is open{f'; {line}' if line else ''}"
