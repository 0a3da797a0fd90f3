"""Whether the folders below a root look like classes, or rather like patients, visits or eyes.

A class folder that is in truth a patient makes a classifier of patients, with splendid scores. So names that are ids,
dates or visits, and folders with the same file names in each, are not taken for classes unless the user says so.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

SHARE = 0.5  # of the folders from which on their names count
SAME_FILES = 5  # folders with the same file names in each from which on they count as patients or visits
WORDS = "patient|pat|pt|subject|subj|sub|case|proband|person|id|visit|eye|study|exam|volume|vol|scan|series|session"
LIKE = {
    "ids": re.compile(rf"(?:.*[^a-z])?(?:{WORDS})[-_ .#]*\d+(?:[^a-z].*)?|[a-z]{{0,4}}[-_]?\d{{3,}}.{{0,4}}", re.I),
    "dates": re.compile(
        r".*(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?[0-3]\d.*|.*\d{1,2}[-_.]\d{1,2}[-_.](?:19|20)\d\d.*"
    ),
    "visits": re.compile(r"[vw][-_ ]?\d{1,3}|(?:visit|week|month|day|baseline|follow-?up)[-_ ]?\d{0,3}", re.I),
    "eyes": re.compile(r"od|os|ou|[lr]|left|right", re.I),
}
NUMBERED = re.compile(r"([a-z]+)[-_ ]?\d+", re.I)  # a class with the number of a patient, as in AMD1 … AMD15, DME1 …
WORDNET = re.compile(r"n\d{8}")  # classes of ImageNet


def unlike_classes(folders: list[list[str]], files: list[str]) -> str:
    """Return why folders look like patients or visits, as the end of a sentence; empty if they look like classes.

    Args:
        folders: the folders of each file below root, outermost first.
        files: the paths.
    """
    names = {steps[0] for steps in folders if steps}
    if len(names) < 2 or all(WORDNET.fullmatch(name) for name in names):
        return ""
    for what in ("dates", "visits", "eyes", "ids"):
        found = sorted(name for name in names if LIKE[what].fullmatch(name))
        if len(found) >= 2 and len(found) >= SHARE * len(names):
            return f"{len(found)} of {len(names)} names look like {what}: {some_of(found)}"
    numbered = Counter(match[1].casefold() for name in names if (match := NUMBERED.fullmatch(name)))
    if sum(numbered.values()) == len(names) > 4 and len(numbered) > 1 and min(numbered.values()) > 1:
        return f"all {len(names)} are one of {', '.join(sorted(numbered))} with a number: {some_of(names)}"
    content: dict[str, set[str]] = defaultdict(set)
    for steps, file in zip(folders, files, strict=True):
        if steps:
            content[steps[0]].add("/".join([*steps[1:], file.rsplit("/", 1)[-1]]))
    first = next(iter(content.values()))
    if len(names) >= SAME_FILES and len(first) > 1 and all(one == first for one in content.values()):
        return f"all {len(names)} have the same {len(first)} file names, as patients or visits do: {some_of(names)}"
    return ""


def some_of(names: Iterable[str]) -> str:
    """Return the first three names, for a message."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", …" if len(ordered) > 3 else "")
