"""The command `plan`: what a run of the workflow takes, before it starts."""

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from octdino.cli.arguments import mapping, positive
from octdino.cli.flags import Parser, Verbs
from octdino.errors import UserError, short
from octdino.workflow_files import preset_path


def _add_plan(parser: Parser) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--configfile", nargs="+", default=[], metavar="FILE",
        help="as for octdino run: files or presets, laid over each other in order (default: config.yaml)",
    )  # fmt: skip
    parser.add_argument(
        "--config", type=_setting, nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake: single sections"
    )
    parser.add_argument(
        "--cores", type=lambda text: cores if text == "all" else positive(text), default=cores, metavar="N",
        help="cores of the run, or all (default: all)",
    )  # fmt: skip
    parser.add_argument("--gpus", type=positive, default=1, metavar="N", help="GPU jobs at a time (default: 1)")
    parser.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="working directory of the run (default: this one)"
    )
    parser.add_argument("--snakefile", type=Path, metavar="FILE", help="another Snakefile than octdino's")
    parser.add_argument("--no-trial", action="store_true", help="sizes only: no trial steps, no times")


def run_plan(args: argparse.Namespace) -> None:
    """Print what a run takes before it starts: jobs per rule, scans, disk, memory, and time from short trials.

    The trials take up to a minute per pretraining method and backbone; nothing is left behind. docs/plan.md says how
    the numbers are found.
    """
    configfiles = [preset_path(given).absolute() for given in args.configfile]
    for path in configfiles:
        mapping_of(path)
    if not args.directory.is_dir():
        raise UserError(f"--directory: no such folder: {args.directory}")
    snakefile = args.snakefile.absolute() if args.snakefile else None
    if snakefile is not None and not snakefile.is_file():
        raise UserError(f"--snakefile: no such file: {snakefile}")
    from octdino.cli.planning.plan import make_plan
    from octdino.cli.planning.plan_text import plan_text

    with contextlib.chdir(args.directory), _quiet("octdino.cohort"):  # the run's paths are relative to it
        plan = make_plan(
            configfiles, dict(args.config), snakefile=snakefile, cores=args.cores, gpus=args.gpus,
            trial=not args.no_trial,
        )  # fmt: skip
        print(plan_text(plan), end="")


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Leave out a logger's warnings, which come again with the run."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def mapping_of(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML or JSON file.

    Raises:
        UserError: it is not one.
    """
    try:
        return mapping(str(path))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--configfile: {path}: {error}") from None


def _setting(text: str) -> tuple[str, Any]:
    """Return key and value of KEY=VALUE; the value is YAML."""
    key, equals, value = text.partition("=")
    try:
        if not (key and equals):
            raise ValueError("expected KEY=VALUE")
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{short(text)}: {' '.join(str(error).split())}") from None


PLAN_VERBS: Verbs = {"plan": (_add_plan, run_plan)}
