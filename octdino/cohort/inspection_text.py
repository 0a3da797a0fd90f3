"""The inspection of a cohort as text for a terminal."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable

from octdino.cohort.inspection import Inspection, positive_patients
from octdino.data.schemas.csv_schemas import REASONS

WIDTH, COLUMN = 100, 16
MOST_EXAMPLES = 2
MOST_SIZES = 5


def inspection_text(found: Inspection) -> str:
    """Return what would be read, in sections: files, columns, labels, patients, images, splits, problems."""
    lines = [*_read(found), "", *_labels(found), "", *_images(found), "", *_splits(found)]
    if found.problems:
        lines += ["", "Before a run:", *(line for problem in found.problems for line in _wrapped("  - ", problem))]
    return "\n".join(lines) + "\n"


def _entry(name: str, text: str) -> list[str]:
    """Return the lines of one entry, wrapped behind its name."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{name:<{COLUMN}}", subsequent_indent=" " * COLUMN, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _wrapped(begin: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _read(found: Inspection) -> list[str]:
    table = found.table
    lines = _entry("root", str(table.root))
    files = ", ".join(f"{count:,} {suffix}" for suffix, count in found.files.most_common(8))
    lines += _entry("files", f"{files}{', …' if len(found.files) > 8 else ''}")
    if table.table_file:
        lines += _entry("table", str(table.table_file))
        lines += _entry("columns", "; ".join(f"{own}: {column}" for own, column in table.columns.items()))
        if table.unread:
            lines += _entry("not read", ", ".join(table.unread))
    elif table.layout and found.settings.folders != "auto":
        lines += _entry("folders", table.layout)
    for number, decision in enumerate(table.decisions):
        lines += _entry("" if number else "decided", decision)
    refused = table.quarantine.rows
    lines += _entry("accepted", f"{len(table.scans):,} scans")
    lines += _entry("refused", f"{len(refused):,} row{'s' * (len(refused) != 1)}" if refused else "none")
    examples: dict[str, list[str]] = defaultdict(list)
    for row in refused:
        if len(examples[row["reason"]]) < MOST_EXAMPLES:
            examples[row["reason"]].append(row["detail"])
    for reason, count in Counter(row["reason"] for row in refused).most_common():
        lines += _wrapped(" " * COLUMN, f"{count:,} {reason} ({REASONS[reason]}): {'; '.join(examples[reason])}")
    return lines


def _labels(found: Inspection) -> list[str]:
    table, truth = found.table, found.truth
    who = "patients" if table.patients == "known" else ""
    if not table.labels:
        return ["no labels: scans for pretraining and prediction", "", *_patients(found)]
    rows: list[tuple[str, ...]] = [("label", "scans", "absent", "unknown", who)]
    for index, name in enumerate(table.labels):
        own = truth[:, index]
        counts = (int((own == 1).sum()), int((own == 0).sum()), int((own != own).sum()))
        patients = f"{positive_patients(found, index):,}" if who else ""
        rows.append((name, *(f"{count:,}" for count in counts), patients))
    lines = _aligned(rows)
    return [*lines, "", *_patients(found)]


def _patients(found: Inspection) -> list[str]:
    if found.patients is None:
        return _entry("patients", "unknown; each image counts as its own")
    per = len(found.table.scans) / found.patients
    pattern = f"; read by the pattern {found.table.pattern} in file names" if found.table.pattern else ""
    return _entry("patients", f"{found.patients:,}, {per:.1f} scans each on average{pattern}")


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the first column to the left, the others to the right."""
    rows = list(rows)
    widths = [min(max(len(row[place]) for row in rows), 60) for place in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip


def _images(found: Inspection) -> list[str]:
    sample, all_ = found.sample, len(found.table.scans)
    how = "all" if len(sample) == all_ else f"a sample of {len(sample):,} of {all_:,}"
    lines = _entry("images", f"{how} decoded")
    kinds = Counter(one.kind for one in sample if one.kind)
    lines += _entry("formats", ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(MOST_SIZES)))
    sizes = Counter(one.scan.size for one in sample if one.scan.size != (0, 0))
    shown = [f"{count:,} of {width} x {height} px" for (width, height), count in sizes.most_common(MOST_SIZES)]
    more = len(sizes) - len(shown)
    lines += _entry("sizes", ", ".join(shown) + (f", and {more} other size{'s' * (more != 1)}" if more > 0 else ""))
    bad = [one for one in sample if one.scan.image is None]
    for reason, count in Counter(one.scan.reason for one in bad).most_common():
        first = next(one for one in bad if one.scan.reason == reason)
        path = found.table.scans["path"].iloc[first.row]
        lines += _entry("unusable", f"{count:,} {reason}: {path}: {first.scan.detail}")
    if found.compared:
        lines += _entry(
            "copies", f"{found.copies:,} files equal another one byte by byte, of {found.compared:,} compared"
        )
    return lines


def _splits(found: Inspection) -> list[str]:
    unit = "patients" if found.table.patients == "known" else "images"
    if not found.splits:
        return _entry("split", "none")
    about = "about " if found.estimated else ""
    parts = [f"{name} {patients:,} {unit}, {scans:,} scans" for name, (patients, scans) in found.splits.items()]
    protocol = found.settings.split.protocol
    return _entry("split", f"{about}{'; '.join(parts)}" + ("" if protocol == "holdout" else f" ({protocol}, fold 0)"))
