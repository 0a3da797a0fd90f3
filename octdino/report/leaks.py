"""What the audit found of the test patients in training, choice or standardisation."""

from dataclasses import dataclass
from pathlib import Path

from octdino.files import read_json
from octdino.tables import FINDINGS, read_table

HEADS = ("check", "where", "how many", "the first, or the worst", "state")


@dataclass(frozen=True)
class Leaks:
    """The audit on the page: what was asked, how much was looked at, the findings, and how many nobody knows of."""

    heads: tuple[str, ...]
    asked: list[str]
    scans: int
    runs: int
    rows: list[tuple[str, ...]]
    unknown: int


def leaks(root: Path) -> Leaks | None:
    """Read results/{cohort}/audit; None where there was no audit."""
    folder = root / "audit"
    if not (folder / "audit.json").is_file():
        return None
    card = read_json(folder / "audit.json", "audit")
    table = read_table(folder / "findings.csv", FINDINGS)
    known = (table["acknowledged"] == 1).map({True: "acknowledged", False: "open"})
    counts = table["count"].map("{:,}".format)
    columns = (table["check"], table["where"], counts, table["detail"], known)
    rows = [tuple(map(str, row)) for row in zip(*columns, strict=True)]
    unknown = int((table["acknowledged"] != 1).sum())
    return Leaks(HEADS, list(card["asked"].values()), int(card["scans"]), int(card["runs"]), rows, unknown)
