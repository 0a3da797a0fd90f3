"""Section of the page on the leakage audit."""

from dataclasses import dataclass
from pathlib import Path

from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import FINDINGS
from octdino.data.schemas.metadata import AuditMetadata, read_metadata
from octdino.report.conclusions import NOTHING

HEADS = ("check", "where", "number", "first finding, worst finding, or reason", "state")


@dataclass(frozen=True)
class Leaks:
    """The audit on the page.

    Attributes:
        heads, rows: of the table: findings, and checks that could not be run.
        asked: what was checked, in words.
        findings: number of findings, acknowledged ones included.
        unknown: number of open findings.
        unchecked: checks that could not be run, with the reason.
    """

    heads: tuple[str, ...]
    asked: list[str]
    scans: int
    runs: int
    rows: list[tuple[str, ...]]
    findings: int
    unknown: int
    unchecked: list[str]


def leaks(root: Path) -> Leaks | None:
    """Return the section from results/{cohort}/audit; None where there was no audit.

    Raises:
        UserError: audit.json or findings.csv is damaged.
    """
    folder = root / "audit"
    if not (folder / "audit.json").is_file():
        return None
    metadata = read_metadata(folder / "audit.json", AuditMetadata, "audit")
    table = read_table(folder / "findings.csv", FINDINGS)
    unchecked = table["state"] == "not checkable"
    counts = table["count"].map("{:,}".format).mask(unchecked, NOTHING)
    columns = (table["check"], table["where"], counts, table["detail"], table["state"])
    rows = [tuple(map(str, row)) for row in zip(*columns, strict=True)]
    asked = [words for check, words in metadata.asked.items() if check not in set(table["check"][unchecked])]
    return Leaks(
        heads=HEADS,
        asked=asked,
        scans=metadata.scans,
        runs=metadata.runs,
        rows=rows,
        findings=int((~unchecked).sum()),
        unknown=int((table["state"] == "open").sum()),
        unchecked=[
            f"{', '.join(part['check'])}: {why}" for why, part in table[unchecked].groupby("detail", sort=False)
        ],
    )
