"""The command line: one verb per stage. The only room that imports all stages."""

from octdino.cli.entry import build_parser, main
from octdino.cli.verbs import VERBS

__all__ = ["VERBS", "build_parser", "main"]
