"""Sections of the site: each second-level heading of docs/index.md, with the pages that its list names."""

import re
from pathlib import Path

ENTRY = re.compile(r"^- \[[^]]+\]\(([\w/-]+)\.md\)")
HIDDEN = ("_build", "_gallery", "extension")


def read_sections(text: str) -> dict[str, list[str]]:
    """Return the pages (without .md) per section of the text of docs/index.md, in order; sections without any: none."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ").strip()
        elif heading and (match := ENTRY.match(line)):
            found.setdefault(heading, []).append(match[1])
    return found


def toctrees(text: str) -> str:
    """Return one hidden toctree per section, in MyST."""
    parts = []
    for heading, pages in read_sections(text).items():
        parts.append("\n".join(["```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```", ""]))
    return "\n".join(parts)


def pages_without_section(docs: Path) -> list[str]:
    """Return the pages below docs/ that no section of docs/index.md lists, such as reference/settings.md."""
    index = docs / "index.md"
    listed = {page for pages in read_sections(index.read_text(encoding="utf-8")).values() for page in pages}
    found = []
    for path in sorted(docs.rglob("*.md")):
        name = path.relative_to(docs)
        if name.parts[0] not in HIDDEN and path != index and str(name.with_suffix("")) not in listed:
            found.append(str(name))
    return found
