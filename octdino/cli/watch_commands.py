"""Command `watch`: the state of running jobs in a terminal."""

import argparse
import sys
from pathlib import Path

from octdino.cli.flags import Parser, Verbs


def _add_watch(parser: Parser) -> None:
    parser.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), metavar="RESULTS",
        help="results/ or results/{cohort}, its logs in logs/ beside it (default: results)",
    )  # fmt: skip


def run_watch(args: argparse.Namespace) -> None:
    """Show running and recently ended jobs of a run, refreshed until Ctrl-C; once if the output is no terminal."""
    from octdino.terminal.watch import watch

    watch(args.results, sys.stdout)


WATCH_VERBS: Verbs = {"watch": (_add_watch, run_watch)}
