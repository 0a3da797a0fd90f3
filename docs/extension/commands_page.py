"""Reference of the commands, from octdino's parser: what each verb does, its arguments and its settings as flags."""

import argparse
from collections.abc import Iterator

from docs.extension.markdown_text import table
from octdino.cli.entry import build_parser
from octdino.cli.flags import MARK, Parser


def markdown() -> str:
    """Return one section per verb, in MyST; flags are Sphinx options, so that the search finds them."""
    lines: list[str] = []
    for name, verb in verbs().items():
        lines += _verb(name, verb)
    return "\n".join(lines)


def verbs() -> dict[str, Parser]:
    """Return the parser of each verb by its name."""
    chosen = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(chosen[0].choices)


def _verb(name: str, verb: Parser) -> Iterator[str]:
    own = [action for action in verb._actions if not action.dest.startswith(MARK) and action.dest != "help"]
    needed = [action for action in own if action.required and action.option_strings]
    words = [_metavar(action) for action in own if not action.option_strings]
    words += [f"{action.option_strings[0]} {_metavar(action)}".strip() for action in needed]
    yield from (f"## `octdino {name}`", "", escaped(" ".join((verb.description or "").split())), "")
    yield from ("```text", " ".join(["octdino", name, *words, "[options]"]), "```", "")
    yield from (f"```{{program}} octdino {name}", "```", "")
    for action in own:
        signature = ", ".join(f"{flag} {_metavar(action)}".strip() for flag in action.option_strings)
        yield from (f"````{{option}} {signature or _metavar(action)}", "", _meaning(action), "````", "")
    groups = [(group.title, _settings(group)) for group in verb._action_groups]
    if not any(rows for _, rows in groups):
        return
    yield from ("**Settings as flags.** Flags win over `--settings`, which wins over the defaults.", "")
    for title, rows in groups:
        if rows:
            yield from ("<details>", f"<summary>{title}: {len(rows)} flags</summary>", "")
            yield from (table(("flag", "meaning"), rows), "</details>", "")


def _settings(group: argparse._ArgumentGroup) -> list[tuple[str, ...]]:
    """Return flag and meaning of each setting in a group of the parser."""
    return [
        (f"`{_flags(action)} {_metavar(action)}`".replace(" `", "`"), _meaning(action))
        for action in group._group_actions
        if action.dest.startswith(MARK)
    ]


def _flags(action: argparse.Action) -> str:
    return ", ".join(action.option_strings)


def _metavar(action: argparse.Action) -> str:
    """Return what follows a flag, or the name of a positional argument."""
    if action.nargs == 0:
        return ""
    word = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
    name = word if isinstance(word, str) else " ".join(word)
    name = name or action.dest.upper().replace("_", "-")
    if isinstance(action.nargs, int):
        return " ".join([name] * action.nargs)
    return {"+": f"{name} …", "*": f"[{name} …]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _meaning(action: argparse.Action) -> str:
    return escaped(" ".join((action.help or "").replace("%%", "%").split()))


def escaped(text: str) -> str:
    """Return text with the characters escaped that Markdown would read, outside of inline code."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        for mark in "\\*_[]<{":
            parts[number] = parts[number].replace(mark, f"\\{mark}")
    return "`".join(parts)
