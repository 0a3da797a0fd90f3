"""Completion scripts of octdino for shells, generated from the parser: completing starts no Python."""

import argparse
from collections.abc import Collection
from typing import Any

import shtab

from octdino.cli.entry import build_parser
from octdino.workflow_files import presets, profiles

FOLDERS = ("DIR", "FOLDER")
FILES = ("PATH", "FILE", "FILES", "JSON", "INPUT")


def completion_script(shell: str) -> str:
    """Return the completion script for bash, zsh or fish: verbs, flags, their choices, files and presets."""
    parser = build_parser()
    verbs = _action(parser, "verb").choices
    assert isinstance(verbs, dict)
    for verb in verbs.values():
        for action in verb._actions:
            _complete_paths(action)
    _add_snakemake_options(verbs["run"])
    name = _action(verbs["presets"], "name")
    del name.complete  # no file
    name.choices = [*presets(), *profiles()]
    return shtab.complete(parser, shell).rstrip("\n") + "\n"


def _complete_paths(action: Any) -> None:
    """Let the shell complete the names of files or folders where an argument is one."""
    words = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
    if any(word in FOLDERS for word in words):
        action.complete = shtab.DIRECTORY
    elif any(word in FILES for word in words) or (not action.option_strings and not action.choices):
        action.complete = shtab.FILE


def _add_snakemake_options(run: argparse.ArgumentParser) -> None:
    """Give `octdino run` the options of Snakemake, which at run time it passes through unread."""
    from snakemake.cli import get_argument_parser

    run.prefix_chars = "-"
    for action in get_argument_parser()._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            action.help = (action.help or "").split(". ")[0]  # shells print it beside each word
            run._add_action(action)
            _complete_paths(action)
    _action(run, "configfile").complete = _names_or_files("preset", presets())
    _action(run, "profile").complete = _names_or_files("profile", profiles())


def _names_or_files(kind: str, names: Collection[str]) -> dict[str, Any]:
    """Return shtab's description of an argument that is one of `names` or a file."""
    words, function = " ".join(names), f"_octdino_{kind}_or_files"
    lines = "\\n".join(names)
    return {
        "bash": function,
        "zsh": function,
        "fish": f"(printf '{lines}\\n'; __fish_complete_path (commandline -ct))",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "{words}" -- "$1"\n  compgen -f -- "$1"\n}}\n',
            "zsh": f"{function}() {{\n  _alternative '{kind}s:{kind}:({words})' 'files:file:_files'\n}}\n",
        },
    }


def _action(parser: argparse.ArgumentParser, name: str) -> Any:
    """Return the argument of a parser that stores `name`, an action with shtab's attribute `complete`."""
    (action,) = (action for action in parser._actions if action.dest == name)
    return action
