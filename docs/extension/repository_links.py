"""Links between pages and to files of the repository, as the site needs them.

On a git host a link is relative to the file that has it. In the site, a page may be a copy of a file that is elsewhere
(CHANGELOG.md, config/README.md), so links from such a page and to such a file change; a link to another file of the
repository stays, and MyST makes a download of it.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from docs.extension.markdown_text import CODE, EXTERNAL, LINK, outside_code

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
Mirrors = dict[Path, Path]  # file of the repository: the page that is its copy
COPY = re.compile(r"^<!-- the text of (\S+) -->$", re.MULTILINE)


def find_mirrors(docs: Path) -> Mirrors:
    """Return the pages that are copies of other files; README.md counts as the first page."""
    found = {ROOT / "README.md": docs / "index.md"}
    for page in docs.rglob("*.md"):
        if "_build" not in page.parts and (match := COPY.search(page.read_text(encoding="utf-8"))):
            found[ROOT / match[1]] = page
    return found


def rewrite_links(text: str, path: Path, page: Path, mirrors: Mirrors, warn: Callable[[str], None]) -> str:
    """Return `text` of the file `path` with its links as the page `page` of the site needs them.

    Args:
        warn: is called with one line per link to a file that does not exist.
    """
    lines = []
    for number, line, prose in outside_code(text):
        if not prose:
            lines.append(line)
            continue

        def changed(match: re.Match[str], number: int = number) -> str:
            target = _site_target(match[2], path, page, mirrors)
            if target is None:
                warn(f"{path.relative_to(ROOT)}:{number}: no such file in the repository: {match[2]}")
                return match[0]
            return f"{match[1]}{target}{match[3]}"

        lines.append(_outside_spans(line, changed))
    return "\n".join(lines) + "\n"


def _outside_spans(line: str, change: Callable[[re.Match[str]], str]) -> str:
    """Replace each link of a line that is not inline code."""
    parts, end = [], 0
    for code in CODE.finditer(line):
        parts += [LINK.sub(change, line[end : code.start()]), code[0]]
        end = code.end()
    return "".join(
        [*parts, LINK.sub(change, line[end:])]
    )  # of "[`x`](target)", "](target)" is in the part after the code


def _site_target(target: str, path: Path, page: Path, mirrors: Mirrors) -> str | None:
    """Return a link's target for the site, or None where it does not exist."""
    if target.startswith((*EXTERNAL, "#")):
        return target
    name, _, fragment = target.partition("#")
    file = Path(os.path.normpath(path.parent / name))
    if file.is_dir() and (file / "README.md").is_file():
        file /= "README.md"
    if not file.is_file():
        return None
    if file == path:
        file = page
    if file == ROOT / "README.md":
        fragment = ""  # the first page of the site has other headings
    file = mirrors.get(file, file)
    relative = os.path.relpath(file, page.parent)
    if not file.is_relative_to(DOCS):
        return f"path:{relative}"  # MyST's word for a file to download
    return relative + (f"#{fragment}" if fragment else "")
