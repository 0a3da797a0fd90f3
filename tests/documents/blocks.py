"""Fenced blocks of the documentation, with the decision whether a test runs each one.

A block of sh or python is run as printed unless a comment in the line above says otherwise:

- `<!-- not run: REASON -->`: it is parsed only.
- `<!-- run shortened -->`: it is run with `short.yaml` laid over its configuration.

A block of yaml is validated as a configuration; if its first line is `# NAME.yaml`, it is that file for the commands of
the page. Further languages (TEXTS) are not checked; a block without a language is a mistake.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HIDDEN = ("_build", "_gallery")
PAGES = sorted(
    [
        *(path for path in (ROOT / "docs").rglob("*.md") if path.relative_to(ROOT / "docs").parts[0] not in HIDDEN),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md", "benchmarks/README.md")),
    ]
)
TEXTS = {"text", "csv", "bibtex"}
FENCE = re.compile(r"^(\s*)```([\w{}-]*)\s*$")
MARKER = re.compile(r"^\s*<!-- (not run: .*\S|run shortened) -->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: path of the page relative to the repository.
        line: number of the line of its fence.
        decision: run, run shortened, or not run: REASON.
    """

    page: str
    line: int
    language: str
    text: str
    decision: str

    @property
    def runs(self) -> bool:
        """Whether a test runs it."""
        return self.decision.startswith("run")

    @property
    def file(self) -> str | None:
        """The name of the file that a block of YAML is for the commands of its page."""
        match = re.match(r"# ([\w.-]+\.yaml)\b", self.text)
        return match[1] if match and self.language == "yaml" else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """Return the path of a page relative to the repository."""
    return str(page.relative_to(ROOT))


def read_blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order.

    Raises:
        ValueError: a fence is not closed, or a decision has no block below it.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    start, indent, language = 0, "", ""
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if start and line.strip() == "```":
            text = "\n".join(each.removeprefix(indent) for each in lines[start : number - 1]) + "\n"
            marker = MARKER.match(lines[start - 2]) if start > 1 else None
            yield Block(name_of(page), start, language, text, marker[1] if marker else "run")
            start = 0
        elif fence and not start:
            start, indent, language = number, fence[1], fence[2]
        elif MARKER.match(line) and not start and not FENCE.match(lines[number] if number < len(lines) else ""):
            raise ValueError(f"{name_of(page)}:{number}: a decision about no block; expected a fence below it")
    if start:
        raise ValueError(f"{name_of(page)}:{start}: a fence without its end")


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def blocks(*languages: str) -> list[Block]:
    """Return all blocks of these languages."""
    return [block for block in BLOCKS if block.language in languages]
