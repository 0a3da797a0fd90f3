"""Commands of external validation: score, and external, which compares scores with the internal test."""

import argparse
from pathlib import Path

from octdino.cli.arguments import add_common, file_path, positive
from octdino.cli.flags import Parser, Verbs, add_flags, settings_of
from octdino.config import EvaluateSettings


def _add_score(parser: Parser) -> None:
    parser.add_argument("classifier", type=Path, metavar="FOLDER", help="output folder of classify")
    add_common(parser, out="folder for scores.csv and scores.json", settings=False)
    parser.add_argument(
        "--store", type=file_path, required=True, metavar="FILE", help="scans.h5 of the external cohort"
    )
    parser.add_argument(
        "--results", type=Path, required=True, metavar="DIR", help="results/{cohort} that has the classifier"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OMP_NUM_THREADS or all)")


def run_score(args: argparse.Namespace) -> None:
    """Score the scans of an external cohort, one that no arm has seen, with a trained classifier."""
    from octdino.inference.external_scores import score_external

    score_external(args.classifier, args.results, args.store, args.out)


def _add_external(parser: Parser) -> None:
    parser.add_argument("classifiers", type=Path, nargs="+", metavar="FOLDER", help="output folders of classify")
    add_common(parser, out="folder for external.csv, external.json and external.svg")
    parser.add_argument("--manifest", type=file_path, required=True, metavar="FILE", help="the internal manifest.csv")
    parser.add_argument(
        "--external",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="results/{cohort}/external/{name}: cohort/, and below scores/ what `octdino score` wrote",
    )
    add_flags(parser, EvaluateSettings, skip=("external",))


def run_external(args: argparse.Namespace) -> None:
    """Compare internal and external performance of the same classifiers, with bootstrap confidence intervals.

    Label maps are in --settings, as below `evaluate`; without one, labels of the same name are compared.
    """
    settings = settings_of(args, EvaluateSettings)
    from octdino.evaluate.external_validation import external_validation

    external_validation(settings, args.manifest, args.classifiers, args.external, args.out)


EXTERNAL_VERBS: Verbs = {"score": (_add_score, run_score), "external": (_add_external, run_external)}
