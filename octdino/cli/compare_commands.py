"""The command `compare`: several results folders side by side."""

import argparse
from pathlib import Path

from octdino.cli.arguments import add_common
from octdino.cli.flags import Parser, Verbs, add_flags, settings_of
from octdino.config import EvaluateSettings
from octdino.config.evaluate import OF_COMPARISONS
from octdino.errors import UserError


def _add_compare(parser: Parser) -> None:
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULTS",
        help="results/{cohort} of finished runs, the reference first",
    )
    add_common(parser, out="the page, a file that ends in .html; a CSV of the same name is written beside it",
               metavar="PAGE")  # fmt: skip
    parser.set_defaults(out_is="file")
    add_flags(parser, EvaluateSettings, skip=("external", *OF_COMPARISONS))


def run_compare(args: argparse.Namespace) -> None:
    """Compare equal arms of several runs: settings that differ, scores, and differences on the test patients.

    Differences are paired where the test patients, their scans and labels are the same by content. All is computed
    from predictions.csv; nothing is trained.
    """
    if args.out.suffix != ".html":
        raise UserError(f"--out: {args.out}; expected a page that ends in .html, beside which a CSV is written")
    settings = settings_of(args, EvaluateSettings)
    from octdino.cli.side_by_side.comparison_page import compare_runs

    print(compare_runs(settings, args.results, args.out))
    print(f"Page: {args.out}")


COMPARE_VERBS: Verbs = {"compare": (_add_compare, run_compare)}
