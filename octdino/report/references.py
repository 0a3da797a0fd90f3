"""Bibliography of the methods text: the entries of references.bib that it cites, as BibTeX.

Titles, years and numbers were looked up in published bibliographies, not written from memory; look up what you add.
The field `octdino` of an entry says what it is the reference of: {method NAME: name in papers}, {cohort NAME: …} or
{backbone PREFIX OF TIMM'S NAME: …}. It is left out where the bibliography is written.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from octdino import __version__

FILE = Path(__file__).with_name("references.bib")


def cite(*keys: str) -> str:
    """Return a citation as Pandoc and Quarto read it: [@first; @second]."""
    return f"[{'; '.join(f'@{key}' for key in keys)}]"


def cited(text: str) -> list[str]:
    """Return the keys that a text cites, each once, in their order."""
    found = re.findall(r"@([a-z0-9]+)", " ".join(re.findall(r"\[(@[^\]]+)\]", text)))
    return list(dict.fromkeys(found))


def entries() -> dict[str, str]:
    """Return every entry of references.bib by its key, as it is written."""
    return {key: re.sub(r"^  octdino = .*\n", "", text, flags=re.MULTILINE) for key, text in _tagged().items()}


def _tagged() -> dict[str, str]:
    text = FILE.read_text(encoding="utf-8").replace("{VERSION}", f"{{{__version__}}}")
    return {match[1]: match[0] for match in re.finditer(r"^@\w+\{(\w+),\n(?:.*\n)*?\}$", text, re.MULTILINE)}


def references_of(kind: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return by name in octdino the name in papers and the keys of the references.

    Args:
        kind: method, cohort or backbone.
    """
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for key, text in _tagged().items():
        if match := re.search(rf"^  octdino = \{{{kind} (\w+): ([^}}]+)\}}", text, re.MULTILINE):
            found[match[1]] = (match[2], (*found.get(match[1], ("", ()))[1], key))
    return found


def bibliography(keys: Iterable[str]) -> str:
    """Return the entries of these keys as BibTeX, in their order."""
    known = entries()
    return "\n\n".join(known[key] for key in keys) + "\n"
