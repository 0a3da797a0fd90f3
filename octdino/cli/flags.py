"""Command-line flags generated from the settings classes: each setting becomes `--name VALUE`, its default in --help.

A nested setting keeps its dotted name, as in `config.yaml` and error messages: `--image.size 224 224`.
"""

import argparse
import difflib
import json
import types
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BeforeValidator
from pydantic_core import PydanticUndefined

from octdino.cli.arguments import mapping
from octdino.config import Settings
from octdino.config.settings_base import merged, renamed
from octdino.errors import EXIT_USER

S = TypeVar("S", bound=Settings)
MARK = "setting "  # prefix of the names of settings in argparse's namespace; no other option has a space in it
SHORT = {"model.weights": "--weights"}  # settings with a second, short flag


class Parser(argparse.ArgumentParser):
    """ArgumentParser with one-line errors and without abbreviated options (so that a new option breaks no script)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER, f"{self.prog}: error: {' '.join(message.split())}; see {self.prog} --help\n")

    def need(self, args: argparse.Namespace, **flags: str) -> None:
        """Exit with a one-line error if one of these arguments (name=flag) was not given."""
        if missing := [flag for name, flag in flags.items() if getattr(args, name) is None]:
            self.error(f"the following arguments are required: {', '.join(missing)}")

    def read(self, kind: Callable[[str], str], name: str, text: str) -> str:
        """Return the text of a positional argument, checked; exit with a one-line error if it is not allowed."""
        try:
            return kind(text)
        except argparse.ArgumentTypeError as error:
            self.error(f"argument {name}: {error}")

    def refuse(self, unknown: list[str]) -> NoReturn:
        """Exit with a one-line error for unknown arguments; a flag of an earlier version is told its new name."""
        known = [flag for action in self._actions for flag in action.option_strings]
        for flag in (word.split("=")[0] for word in unknown):
            if (new := _renamed_flag(flag)) in known:
                self.error(f"{flag}: renamed; write {new}")
        close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        self.error(f"unknown {' '.join(unknown)}" + (f"; did you mean {close[0]}?" if close else ""))


# A verb's function that adds its arguments, and the one that runs it and may return an exit code other than 0.
Verbs = dict[str, tuple[Callable[[Parser], None], Callable[[argparse.Namespace], int | None]]]


def _renamed_flag(flag: str) -> str | None:
    """Return the present name of a flag of an earlier version, or None."""
    no = "no-" if flag.startswith("--no-") else ""
    new = renamed(flag.removeprefix(f"--{no}").replace("-", "_"))
    return f"--{no}{new}".replace("_", "-") if new else None


def add_flags(
    parser: argparse.ArgumentParser,
    cls: type[Settings],
    prefix: str = "",
    skip: Collection[str] = (),
    section: Settings | None = None,
) -> None:
    """Add one flag per field of `cls` but those in `skip`; `prefix` (with its dot) begins their names.

    Help shows the defaults of `cls`, or those of its instance `section` for a section with defaults of its own.
    """
    group = parser.add_argument_group((prefix.rstrip(".") or "settings"), (cls.__doc__ or "").strip().splitlines()[0])
    for name, field in cls.model_fields.items():
        if name in skip:
            continue
        default = getattr(section, name) if section else field.default
        if isinstance(default, Settings):
            add_flags(parser, type(default), f"{prefix}{name}.", section=default)
            continue
        kind, optional = _without_none(field.annotation)
        group.add_argument(
            f"--{prefix}{name}".replace("_", "-"),
            *([SHORT[prefix + name]] if prefix + name in SHORT else []),
            dest=f"{MARK}{prefix}{name}",
            default=argparse.SUPPRESS,
            help=_help(field.description, default, kind, optional),
            **_reading(kind, optional, free=any(isinstance(part, BeforeValidator) for part in field.metadata)),
        )


def given(args: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """Return the settings below `prefix` that the command line sets, nested as in `config.yaml`."""
    values: dict[str, Any] = {}
    for key, value in vars(args).items():
        if not key.startswith(MARK + prefix):
            continue
        *sections, name = key.removeprefix(MARK + prefix).split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return values


def settings_of(args: argparse.Namespace, cls: type[S], base: dict[str, Any] | None = None) -> S:
    """Return the settings: defaults, overridden by `base` (by default that of `--settings`), then by single flags."""
    flags = {key: value for key, value in given(args).items() if key in cls.model_fields}
    return cls.parse(merged(args.settings if base is None else base, flags), "settings")


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0], len(kinds) < len(get_args(annotation))
    return annotation, False


def _reading(kind: Any, optional: bool, free: bool) -> dict[str, Any]:
    """Return the keywords with which argparse reads the text of a type; pydantic converts and checks it.

    `free`: the validator of the setting checks the number of values.
    """
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is dict:
        return {"type": mapping, "metavar": "JSON"}
    if origin is Literal:
        return {"type": _literal(inner), "choices": [*inner, *([None] if optional else [])]}
    if origin in (tuple, list):
        count = len(inner) if origin is tuple and not optional and not free else "+"
        return {
            "type": _literal(get_args(inner[0])) or str,
            "nargs": count,
            "metavar": _metavar(inner[0]),
            "action": Several,
        }
    return {"type": _none_if_null if optional else str, "metavar": _metavar(kind)}


class Several(argparse.Action):
    """Action that stores several values, or None for the single word `null`."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, None if values == ["null"] else values)


def _none_if_null(text: str) -> str | None:
    return None if text == "null" else text


def _literal(choices: tuple[Any, ...]) -> Any:
    """Return a reader from text to the choice it stands for, for choices that are numbers or null."""
    by_text = {str(choice): choice for choice in choices}

    def read(text: str) -> Any:
        return None if text == "null" else by_text.get(text, text)

    return read if choices else None


def _metavar(kind: Any) -> str:
    names = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
    return names.get(kind, "VALUE")


def _help(description: str | None, default: Any, kind: Any, optional: bool) -> str:
    shown = "required" if default is PydanticUndefined else f"default: {_written(default)}"
    null = "; null: none" if optional and "null" not in (description or "") else ""
    return f"{description or ''}{null} ({shown})".strip().replace("%", "%%")


def _written(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return " ".join(str(v) for v in value)
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)
