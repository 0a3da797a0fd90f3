"""The program `python -m replication`: the commands of octdino, and the two of the replication.

python -m replication protocol ARM --store … --backbone … --out DIR    train an arm with the report's protocol
python -m replication quoted --results results/{cohort} --out DIR      tabulate the report's numbers beside ours
"""

import argparse
import sys
from pathlib import Path

from octdino.cli import main
from octdino.cli.arguments import add_common, add_part, add_run, arm, mapping
from octdino.cli.flags import Parser, add_flags, given, settings_of
from octdino.cli.verbs import VERBS
from octdino.config import ClassifySettings, ModelSettings
from octdino.config.settings_base import merged
from replication.settings import ProtocolSettings, ReplicationSettings


def _add_protocol(parser: Parser) -> None:
    parser.add_argument("arm", type=arm, metavar="ARM", help="{init}-linear or {init}-finetune")
    add_run(parser, out="folder for protocol.csv and protocol.json")
    add_part(parser)
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="folder of the pretraining run to start from")
    parser.add_argument("--protocol", type=mapping, default={}, metavar="JSON", help="the section replication.protocol")
    add_flags(parser, ClassifySettings, skip=("arms", "fractions", "arm_fractions", "seeds"))
    add_flags(parser, ModelSettings, "model.")


def run_protocol(args: argparse.Namespace) -> None:
    """Train an arm with the report's faulty protocol, which selects the epoch on test scans."""
    settings = settings_of(args, ClassifySettings)
    protocol = ProtocolSettings.parse(args.protocol, "--protocol")
    model = ModelSettings.parse({"timm": args.backbone, **merged(args.model, given(args, "model."))}, "model")
    from replication.faulty_protocol import faulty_protocol

    faulty_protocol(
        args.arm, settings, protocol, store=args.store, backbone=args.backbone, model=model,
        pretrained=args.pretrained, fraction=args.fraction, fold=args.fold, seed=args.seed, out=args.out,
    )  # fmt: skip


def _add_quoted(parser: Parser) -> None:
    add_common(parser, out="folder for replication.csv and replication.md")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="results/{cohort}")


def run_quoted(args: argparse.Namespace) -> None:
    """Tabulate the report's numbers beside ours; `--settings` holds the section replication."""
    settings = ReplicationSettings.parse(args.settings, "settings")
    from replication.quoted_numbers import write_quoted_numbers

    write_quoted_numbers(settings.numbers, args.results, args.out)


VERBS |= {"protocol": (_add_protocol, run_protocol), "quoted": (_add_quoted, run_quoted)}

if __name__ == "__main__":
    sys.exit(main())
