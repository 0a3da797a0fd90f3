"""Commands that make a cohort: phantom, fetch and cohort; and schema, which prints the settings."""

import argparse
import json
from pathlib import Path

from octdino.cli.arguments import add_common
from octdino.cli.flags import Parser, Verbs, add_flags, settings_of
from octdino.config import CohortSettings, Config, PhantomSettings
from octdino.config.defaults import default_yaml
from octdino.config.settings_base import merged
from octdino.errors import UserError


def _add_phantom(parser: Parser) -> None:
    add_common(parser, out="folder for the files", workers=True)
    add_flags(parser, PhantomSettings)


def run_phantom(args: argparse.Namespace) -> None:
    """Write a synthetic cohort as files in the published form of OLIVES."""
    settings = settings_of(args, PhantomSettings)
    from octdino.phantom import write_phantom

    write_phantom(settings, args.out, args.workers)


def _add_cohort(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="phantom, folder, or one that `octdino fetch` downloads")
    add_common(parser, out="folder for manifest.csv, quarantine.csv, splits.csv and scans.h5", workers=True)
    parser.add_argument(
        "--test-only", action="store_true", help="all patients are test, as of an external cohort: no split is made"
    )
    add_flags(parser, CohortSettings, skip=("name", "phantom"))


def run_cohort(args: argparse.Namespace) -> None:
    """Read image files and their tables into a manifest, splits and one HDF5 store."""
    settings = settings_of(args, CohortSettings, merged(args.settings, {"name": args.name}))
    if settings.name == "phantom" and settings.root is None:
        raise UserError("--root: missing; say where `octdino phantom` wrote the files")
    from octdino.cohort.ingest import build_cohort

    build_cohort(settings, args.out, args.workers, args.test_only)


def _add_fetch(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="olives, oct2017, octdl, imagenette, cifar10, stl10 or voc12")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder for the files; cohort.root")
    add_flags(parser, CohortSettings, skip=[name for name in CohortSettings.model_fields if name != "imagenette"])


def run_fetch(args: argparse.Namespace) -> None:
    """Download a published cohort; an interrupted download resumes."""
    settings = settings_of(args, CohortSettings, {"name": args.name, "root": args.root})
    from octdino.cohort.registry import fetch_cohort

    fetch_cohort(settings, args.root)


def _add_schema(parser: Parser) -> None:
    parser.add_argument("--defaults", action="store_true", help="print config/default.yaml: each key with its default")


def run_schema(args: argparse.Namespace) -> None:
    """Print the JSON schema of config.yaml, or every key with its meaning and default as YAML."""
    if args.defaults:
        print(default_yaml(), end="")
        return
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    print(json.dumps(schema, indent=2, ensure_ascii=False))


COHORT_VERBS: Verbs = {
    "phantom": (_add_phantom, run_phantom),
    "fetch": (_add_fetch, run_fetch),
    "cohort": (_add_cohort, run_cohort),
}
SCHEMA_VERBS: Verbs = {"schema": (_add_schema, run_schema)}
