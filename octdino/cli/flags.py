"""Command-line flags made from the settings classes: a setting is written once, and here it becomes `--name VALUE`.

A nested setting keeps its dotted name, the one that `config.yaml` and error messages use: `--image.size 224 224`.
"""

import argparse
import difflib
import json
import os
import types
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BeforeValidator
from pydantic_core import PydanticUndefined

from octdino.config import Settings
from octdino.config.names import check_arm, check_backbone_name, check_fraction, check_method_name, check_seeds, short
from octdino.errors import EXIT_USER

S = TypeVar("S", bound=Settings)
MOST_VALUES = 100_000  # in a mapping of settings
MARK = "setting "  # opens the names under which argparse keeps settings; no other option has a space in it
SHORT = {"model.weights": "--weights"}  # settings that have a second, short flag


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, and whose options cannot be abbreviated (a new option breaks no script)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER, f"{self.prog}: error: {' '.join(message.split())}; see {self.prog} --help\n")

    def refuse(self, unknown: list[str]) -> NoReturn:
        """End because of arguments that this verb does not know."""
        known = [flag for action in self._actions for flag in action.option_strings]
        close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        self.error(f"unknown {' '.join(unknown)}" + (f"; did you mean {close[0]}?" if close else ""))


def add_flags(
    parser: argparse.ArgumentParser,
    cls: type[Settings],
    prefix: str = "",
    skip: Collection[str] = (),
    section: Settings | None = None,
) -> None:
    """One flag a field of `cls`; `prefix` (with its dot) opens their names, `skip` names fields that get none.

    Help shows the defaults of `cls`, or those of its instance `section` where a section has its own.
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
    """The settings below `prefix` that the command line names, nested as in `config.yaml`."""
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
    """The settings: defaults, then `base` (by default what `--settings` says), then single flags."""
    flags = {key: value for key, value in given(args).items() if key in cls.model_fields}
    return cls.parse(merged(args.settings if base is None else base, flags), "settings")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places, section by section."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def mapping(text: str) -> dict[str, Any]:
    """A mapping written as JSON, or the path of a YAML or JSON file that holds one."""
    try:
        source = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        values = yaml.safe_load(source)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}; expected JSON or a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no text, or no date
        raise argparse.ArgumentTypeError(f"not valid JSON or YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(f"expected a mapping of settings, found {type(values).__name__}")
    if not _is_small(values):
        raise argparse.ArgumentTypeError(f"more than {MOST_VALUES} values, or a value that contains itself")
    return values


def _is_small(values: Any) -> bool:
    """Whether nested values are few: aliases in YAML make a tree of any size, or one without end, of a few bytes."""
    count, pending = 0, [values]
    while pending and count <= MOST_VALUES:
        value = pending.pop()
        inner = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        count += 1 + len(inner)
        pending += inner
    return count <= MOST_VALUES


def file_path(text: str) -> Path:
    """The path of a file: other than a folder's it has a name."""
    path = Path(text)
    if not path.name or path.name == "..":
        raise argparse.ArgumentTypeError(f"{text!r} is no file; expected its path")
    return path


def count(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{short(text)} is not a whole number from 0")
    return int(text)


def seed(text: str) -> int:
    """A seed of a run."""
    value = count(text)
    checked(lambda _: check_seeds([value]))(text)
    return value


def checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """A reader of argparse for a text that a check of the configuration takes."""

    def read(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return read


backbone, init, arm = checked(check_backbone_name), checked(check_method_name), checked(check_arm)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{short(text)} is not a whole number from 1")
    return int(text)


def fold(text: str) -> int | None:
    """A whole number from 0, or None for `all`."""
    return None if text == "all" else count(text)


def share(text: str) -> float:
    """A fraction, as in the configuration."""
    try:
        return check_fraction(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0], len(kinds) < len(get_args(annotation))
    return annotation, False


def _reading(kind: Any, optional: bool, free: bool) -> dict[str, Any]:
    """How argparse reads a value of this type; pydantic turns the text into it and checks it.

    `free`: the setting's own validator counts the values.
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
    return {"type": _nullable if optional else str, "metavar": _metavar(kind)}


class Several(argparse.Action):
    """Several values; the single word `null` stands for none."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, None if values == ["null"] else values)


def _nullable(text: str) -> str | None:
    return None if text == "null" else text


def _literal(choices: tuple[Any, ...]) -> Any:
    """A reader that finds the choice written as `text`, for choices that are numbers or null."""
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
    """As one would type it."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return " ".join(str(v) for v in value)
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def add_common(parser: Parser, out: str, metavar: str = "DIR", settings: bool = True, workers: bool = False) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar=metavar, help=out)
    if settings:
        parser.add_argument(
            "--settings", type=mapping, default={}, metavar="JSON", help="settings as JSON or a YAML file; flags win"
        )
    if workers:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parser.add_argument(
            "--workers", type=positive, default=cores, metavar="N", help="processes side by side (default: all cores)"
        )


def add_run(parser: Parser, out: str, together: bool = False) -> None:
    """What pretrain, classify and explain share: the store, the backbone, the seed.

    `together`: several processes may train.
    """
    add_common(parser, out)
    add_store(parser)
    parser.add_argument(
        "--backbone", type=backbone, required=True, metavar="NAME", help="its name in results; timm's unless --model"
    )
    parser.add_argument("--model", type=mapping, default={}, metavar="JSON", help="the backbone as below `models`")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OMP_NUM_THREADS or all)")
    if together:
        parser.add_argument(
            "--processes", type=positive, default=1, metavar="N", help="that train together, one a GPU (default: 1)"
        )


def add_store(parser: Parser) -> None:
    """The cohort's store, and the seed of what is made of it."""
    parser.add_argument("--store", type=file_path, required=True, metavar="FILE", help="scans.h5, its tables beside it")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="every random choice descends from it")


def add_part(parser: Parser) -> None:
    """Which patients: what classify and clinical share."""
    parser.add_argument(
        "--fraction", type=share, default=1.0, metavar="X", help="share of the labelled training patients (default: 1)"
    )
    add_fold(parser)


def add_fold(parser: Parser) -> None:
    """Which patients are test: what embed, classify and clinical share."""
    parser.add_argument("--fold", type=count, default=0, metavar="N", help="which patients are test")
