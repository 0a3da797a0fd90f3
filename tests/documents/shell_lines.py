"""Parsing of the command lines that the documentation prints: programs, verbs, flags and files exist."""

import contextlib
import importlib.util
import io
import re
import shlex
import tomllib
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from octdino.cli.entry import build_parser
from octdino.workflow_files import presets, profiles

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
EXTERNAL = {  # programs whose arguments are not checked
    ".", "cd", "cp", "curl", "dot", "git", "lscpu", "mkdir", "podman", "apptainer", "python3", "sinfo", "squeue",
    "tail", "tensorboard", "uv", "xdg-open",
}  # fmt: skip
NOT_INSTALLED = {"kubernetes"}  # executors whose plugins are not in the lock: their flags are unknown
SEPARATORS = {"|", "&&", "||", ";", "&"}


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a block of sh, without comments, redirections and environment variables."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"(^|\s)#.*$", "", line), posix=True, punctuation_chars=True)
        lexer.commenters = ""
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for word in [*lexer, ";"]:
            if word in SEPARATORS:
                if words:
                    yield words
                words = []
            elif set(word) <= set("<>"):
                skip = True
            elif skip:
                skip = False
            elif words or not re.match(r"[A-Za-z_]\w*=", word):
                words.append(word.replace("$PWD/", ""))


def fault(words: list[str], written: Collection[str] = ()) -> str | None:
    """Return what is wrong with a command, or None.

    Args:
        written: files that the page has the reader write before.
    """
    program, *arguments = words
    if words[:2] == ["octdino", "run"]:  # it passes everything to Snakemake, and knows presets and profiles by name
        return _snakemake(arguments[1:], {*written, *presets(), *profiles()})
    if program == "octdino":
        return _octdino(arguments)
    if program == "snakemake":
        return _snakemake(arguments, written)
    if program == "make":
        return _make(arguments)
    if program == "pip":
        return _pip(arguments)
    if Path(program).name == "python" and arguments[:1] == ["-m"]:
        found = importlib.util.find_spec(arguments[1])
        return None if found else f"no module {arguments[1]}"
    return None if program in EXTERNAL else f"unknown program {program}; add it to EXTERNAL if it is right"


def inline_fault(words: list[str]) -> str | None:
    """Return what is wrong with a command inside of a sentence, which may lack arguments: its verb and flags exist."""
    program, *arguments = words
    flags = {word.split("=")[0] for word in arguments if re.match(r"--[a-z]", word)}
    if program == "octdino" and arguments[:1] != ["run"]:
        verb = next((word for word in arguments if not word.startswith("-")), None)
        if verb is None or not re.fullmatch("[a-z]+", verb):
            return None
        if verb not in _verbs():
            return f"no verb {verb}"
        known = {flag for action in _verbs()[verb]._actions for flag in action.option_strings}
    elif program in ("octdino", "snakemake"):
        known = {flag for action in snakemake_parser()._actions for flag in action.option_strings}
    else:
        return _make(arguments)
    unknown = flags - known - {"--dino.*"}
    return f"no flag {', '.join(sorted(unknown))} of {program}" if unknown else None


def _octdino(arguments: list[str]) -> str | None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            _, unknown = _parser().parse_known_args(arguments)
        except SystemExit as end:
            return said.getvalue().strip() if end.code else None
    return f"unknown: {' '.join(unknown)}" if unknown else None


@cache
def _parser() -> Any:
    return build_parser()


@cache
def _verbs() -> dict[str, Any]:
    return next(dict(action.choices) for action in _parser()._actions if isinstance(action.choices, dict))


@cache
def snakemake_parser() -> Any:
    """Return Snakemake's own parser."""
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


def _snakemake(arguments: list[str], written: Collection[str]) -> str | None:
    if "--executor" in arguments and arguments[arguments.index("--executor") + 1] in NOT_INSTALLED:
        return None
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            args = snakemake_parser().parse_args(arguments)
        except SystemExit as end:
            return said.getvalue().strip().splitlines()[-1] if end.code else None
    files = [*map(str, args.configfile or []), *([str(args.snakefile)] if args.snakefile else [])]
    missing = [name for name in files if name not in written and not (ROOT / name).is_file()]
    chosen = [args.profile] if isinstance(args.profile, str) else args.profile or []
    missing += [name for name in map(str, chosen) if name not in written and not (ROOT / name).is_dir()]
    return f"no such file: {', '.join(missing)}" if missing else None


def _make(arguments: list[str]) -> str | None:
    for word in arguments:
        name, is_variable, _ = word.partition("=")
        if is_variable and not re.search(rf"\b{name}\b", MAKEFILE):
            return f"the Makefile has no {name}"
        if not is_variable and not re.search(rf"^{name}:", MAKEFILE, re.MULTILINE):
            return f"no target {name} in the Makefile"
    return None


def _pip(arguments: list[str]) -> str | None:
    for word in arguments:
        if (match := re.fullmatch(r"octdino\[([\w,]+)\]", word)) and not set(match[1].split(",")) <= EXTRAS.keys():
            return f"no such extra: {word}"
    return None
