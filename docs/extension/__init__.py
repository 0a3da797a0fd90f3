"""Sphinx extension of the documentation: sections from docs/index.md, links to repository files, generated pages.

A page in docs/ is plain Markdown that a git host renders. A comment in it, `<!-- generated: NAME -->`, is replaced when
the site is built by text that is made from the code (GENERATED), and `<!-- the text of PATH -->` makes the page a copy
of a Markdown file elsewhere in the repository.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

from docs.extension import commands_page, files_page, gallery, python_page, settings_page
from docs.extension.repository_links import Mirrors, find_mirrors, rewrite_links
from docs.extension.sections import pages_without_section, toctrees

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {
    "settings": settings_page.markdown,
    "commands": commands_page.markdown,
    "files": files_page.markdown,
    "python": python_page.markdown,
}
PLACE = re.compile(r"^<!-- generated: ([a-z]+) -->$", re.MULTILINE)
logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to a build."""
    app.add_object_type("setting", "setting", objname="setting", indextemplate="single: %s (setting)")
    app.connect("source-read", _read)
    app.connect("env-updated", _check_sections)
    app.connect("builder-inited", _copy_gallery)
    return {"version": "1", "parallel_read_safe": True}


def _copy_gallery(app: Sphinx) -> None:
    results = os.environ.get("OCTDINO_DOCS_RESULTS")
    app.config.octdino_gallery = gallery.prepare(Path(results) if results else None, DOCS / "_gallery")


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace the text of one page by that which the site shows."""
    mirrors = find_mirrors(DOCS)
    path, text = _original(name, source[0], mirrors)
    if name == "index":
        text += "\n" + toctrees(text)
    text = rewrite_links(text, path, DOCS / f"{name}.md", mirrors, lambda line: logger.warning(line, location=name))

    def made(match: re.Match[str]) -> str:
        if match[1] == "gallery":
            return str(app.config.octdino_gallery)
        return GENERATED[match[1]]()

    source[0] = PLACE.sub(made, text)


def _original(name: str, text: str, mirrors: Mirrors) -> tuple[Path, str]:
    """Return the file whose text a page shows, and the text: its own, or of the repository's file that it copies."""
    page = DOCS / f"{name}.md"
    for path, mirror in mirrors.items():
        if mirror == page and name != "index":
            return path, path.read_text(encoding="utf-8")
    return page, text


def _check_sections(app: Sphinx, env: Any) -> None:
    for page in pages_without_section(DOCS):
        logger.warning(f"{page}: in no section of docs/index.md; add a line `- [Title]({page}): what it is for`")
