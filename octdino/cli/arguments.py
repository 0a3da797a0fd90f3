"""Arguments of the commands that are no settings: readers of their text, and the groups that several verbs share."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from octdino.config.names import check_arm, check_backbone_name, check_fraction, check_method_name, check_seeds
from octdino.errors import short

MOST_VALUES = 100_000  # in a mapping of settings


def mapping(text: str) -> dict[str, Any]:
    """Return the mapping that is written in JSON, or in a YAML or JSON file."""
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
    """Whether nested values are at most MOST_VALUES: a few bytes of YAML aliases can expand without limit."""
    count, pending = 0, [values]
    while pending and count <= MOST_VALUES:
        value = pending.pop()
        inner = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        count += 1 + len(inner)
        pending += inner
    return count <= MOST_VALUES


def file_path(text: str) -> Path:
    """Return the path of a file, which has a name, unlike some of a folder."""
    path = Path(text)
    if not path.name or path.name == "..":
        raise argparse.ArgumentTypeError(f"{text!r} is no file; expected its path")
    return path


def whole_number_parser(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers of at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > 18 or int(text) < least:
            raise argparse.ArgumentTypeError(f"{short(text)} is not a whole number from {least}")
        return int(text)

    return read


count, positive = whole_number_parser(0), whole_number_parser(1)


def checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a reader that applies a check of the configuration to the text."""

    def read(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return read


backbone, init, arm = checked(check_backbone_name), checked(check_method_name), checked(check_arm)


def seed(text: str) -> int:
    """Return the seed of a run."""
    value = count(text)
    checked(lambda _: check_seeds([value]))(text)
    return value


def fold(text: str) -> int | None:
    """Return the number of a fold, or None for `all`."""
    return None if text == "all" else count(text)


def share(text: str) -> float:
    """Return a fraction, checked as in the configuration."""
    try:
        return check_fraction(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_common(
    parser: argparse.ArgumentParser,
    out: str,
    metavar: str = "DIR",
    settings: bool = True,
    workers: bool = False,
    default_out: Path | None = None,
) -> None:
    """Add --out (`out` is its help; required without a default), and if wanted --settings and --workers."""
    required = default_out is None
    parser.add_argument("--out", type=Path, required=required, default=default_out, metavar=metavar, help=out)
    if settings:
        parser.add_argument(
            "--settings", type=mapping, default={}, metavar="JSON", help="settings as JSON or a YAML file; flags win"
        )
    if workers:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parser.add_argument(
            "--workers", type=positive, default=cores, metavar="N", help="parallel processes (default: all cores)"
        )


def add_run(parser: argparse.ArgumentParser, out: str, together: bool = False, of_cohort: bool = True) -> None:
    """Add the arguments of pretrain, classify and explain: store, backbone, seed, threads.

    `together`: with --processes, for training in several processes. `of_cohort`: store and backbone are required.
    """
    add_common(parser, out)
    add_store(parser, of_cohort)
    parser.add_argument(
        "--backbone",
        type=backbone,
        required=of_cohort,
        metavar="NAME",
        help="its name in results; timm's unless --model",
    )
    parser.add_argument("--model", type=mapping, default={}, metavar="JSON", help="the backbone as below `models`")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OMP_NUM_THREADS or all)")
    if together:
        parser.add_argument(
            "--processes", type=positive, default=1, metavar="N", help="that train together, one per GPU (default: 1)"
        )


def add_store(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --store and --seed."""
    parser.add_argument(
        "--store", type=file_path, required=required, metavar="FILE", help="scans.h5, its tables beside it"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of every random choice (default: 0)")


def add_part(parser: argparse.ArgumentParser) -> None:
    """Add --fraction and --fold: the patients of classify and clinical."""
    parser.add_argument(
        "--fraction", type=share, default=1.0, metavar="X", help="share of the labeled training patients (default: 1)"
    )
    add_fold(parser)


def add_fold(parser: argparse.ArgumentParser) -> None:
    """Add --fold: the fold whose patients are test, for embed, classify and clinical."""
    parser.add_argument(
        "--fold", type=count, default=0, metavar="N", help="fold whose patients are the test set (default: 0)"
    )
