"""Arguments of commands that read new scans, and `octdino embed` of them."""

import argparse
from pathlib import Path

from octdino.cli.arguments import positive
from octdino.cli.flags import Parser
from octdino.errors import EXIT_PARTLY

INPUTS = "files, folders, patterns, a CSV with a column path, or a cohort's scans.h5"


def add_new_scans(parser: Parser) -> None:
    """Add the arguments of `octdino embed MODEL INPUT`; without INPUT the verb is the workflow's stage."""
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=f"new scans: {INPUTS}")
    parser.add_argument("--format", choices=("h5", "parquet"), default="h5", help="of new scans' embeddings")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes that decode new scans")
    add_precision(parser)


def add_precision(parser: Parser) -> None:
    """Add --precision, of the network."""
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "auto"), default="float32",
        help="of a model folder's network; bfloat16 changes probabilities by about 0.01 (default: float32)",
    )  # fmt: skip


def run_embed_scans(args: argparse.Namespace) -> int:
    """Write the embeddings of new scans; the exit code is 3 if some were refused."""
    if args.store is not None or args.backbone is not None or args.pretrained is not None:
        args.parser.error("INPUT: new scans need a model folder only; leave out --store, --backbone and --pretrained")
    from octdino.inference.scan_embeddings import embed_scans

    refused = embed_scans(Path(args.init), args.inputs, args.out, args.format, args.precision, args.workers)
    return EXIT_PARTLY if refused else 0
