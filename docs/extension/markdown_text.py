"""Reading of Markdown without a parser: lines outside of code, links, headings and their anchors."""

import re
from collections.abc import Iterator
from pathlib import Path

FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")  # the target of an inline link or image
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
EXTERNAL = ("http://", "https://", "mailto:")


def outside_code(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield (line number from 1, line, whether it is outside of fenced code) for each line."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
            yield number, line, False
        elif fence:
            if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
            yield number, line, False
        else:
            yield number, line, True


def link_targets(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, target) of each inline link and image outside of code that leads into the repository."""
    for number, line, prose in outside_code(text):
        if prose:
            for match in LINK.finditer(CODE.sub("", line)):
                if not match[2].startswith(EXTERNAL):
                    yield number, match[2]


def anchor(heading: str) -> str:
    """Return the anchor that git hosts and MyST give a heading."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Return the anchors of all headings of a Markdown file."""
    found: set[str] = set()
    for _, line, prose in outside_code(path.read_text(encoding="utf-8")):
        if prose and (match := re.match(r"#{1,6}\s+(.*?)\s*#*$", line)):
            name, count = anchor(match[1]), 0
            while (unique := f"{name}-{count}" if count else name) in found:
                count += 1
            found.add(unique)
    return found


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table; bars in cells are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"
