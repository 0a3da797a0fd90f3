"""The command line: one verb per stage. The only room that imports all stages."""

from octdino.cli.commands import VERBS
from octdino.cli.entry import build_parser, main

__all__ = ["VERBS", "build_parser", "main"]
