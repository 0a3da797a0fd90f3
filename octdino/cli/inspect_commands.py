"""Commands that look at scans before a run: inspect, and init, which asks a few questions."""

import argparse
import sys
from pathlib import Path
from typing import Any

from octdino.cli.arguments import add_common, positive
from octdino.cli.flags import Parser, Verbs, add_flags, given
from octdino.config import CohortSettings, Config
from octdino.config.settings_base import merged
from octdino.errors import UserError

FILES = ("inspect.yaml", "inspect.html")
TABLES = {".csv", ".tsv", ".xlsx", ".xlsm"}
SKIP = ("name", "root", "table", "phantom", "clinical", "imagenette")


def _add_inspect(parser: Parser) -> None:
    parser.add_argument("source", type=Path, metavar="ROOT", help="folder of the scans, or a table of them")
    _add_shared(parser)
    add_flags(parser, CohortSettings, skip=SKIP)


def _add_init(parser: Parser) -> None:
    parser.add_argument("source", type=Path, nargs="?", metavar="ROOT", help="folder of the scans, or a table of them")
    _add_shared(parser)


def _add_shared(parser: Parser) -> None:
    add_common(parser, out=f"folder for {' and '.join(FILES)} (default: .)", workers=True, default_out=Path())
    parser.add_argument("--sample", type=positive, default=200, metavar="N", help="images to decode (default: 200)")
    sizes = ("auto", "laptop", "gpu")
    parser.add_argument("--size", choices=sizes, default="auto", help="of the run; auto: gpu where there is one")
    parser.add_argument("--force", action="store_true", help="write over existing files")


def run_inspect(args: argparse.Namespace) -> None:
    """Show what would be read of a folder or table of scans, and write a configuration and a contact sheet.

    Tables and folders are read as by `octdino cohort folder`, all of them; of the images a sample is decoded.
    `--settings` takes a section `cohort` or a whole configuration, such as an inspect.yaml.
    """
    _check_new(args)
    root, table = _place(args.source)
    values = merged(_cohort_section(args.settings), given(args))
    _inspect(args, _settings(values, root, table), args.size)


def run_init(args: argparse.Namespace) -> None:
    """Ask a few questions about scans, and write a configuration and a contact sheet as `octdino inspect` does."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("it asks questions on a terminal, and this is none; `octdino inspect ROOT` asks nothing")
    _check_new(args)
    from octdino.cli.questions import ask_settings

    try:
        root, table = _place(args.source or Path(_asked_root()))
        answers = ask_settings(_settings(_cohort_section(args.settings), root, table), args.size)
    except EOFError:
        raise UserError("the input ended before the last answer; nothing is written") from None
    _inspect(args, answers.settings, answers.size)


def _asked_root() -> str:
    from octdino.cli.questions import ask

    return ask("Folder of the scans, or a table of them", ".")


def _inspect(args: argparse.Namespace, settings: CohortSettings, size: str) -> None:
    """Inspect, print, and write both files."""
    from octdino.cohort.contact_sheet import write_contact_sheet
    from octdino.cohort.inspection import inspect_cohort
    from octdino.cohort.inspection_text import inspection_text
    from octdino.cohort.starting_config import has_gpu, run_command, starting_yaml, suggest, with_suggested_image
    from octdino.data.atomic_files import replacing

    laptop = size == "laptop" or (size == "auto" and not has_gpu())
    found = inspect_cohort(with_suggested_image(settings, laptop), args.sample, args.workers)
    configuration, sheet = (args.out / name for name in FILES)
    suggestion = suggest(found, laptop)
    text = starting_yaml(found, suggestion, str(configuration))
    print(inspection_text(found), end="")
    write_contact_sheet(sheet, found, suggestion.cohort["title"])
    with replacing(configuration) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"\nScans as they would be stored: {sheet}\nConfiguration to start from:   {configuration}")
    command = run_command(suggestion, str(configuration))
    print(f"What a run takes:              {command.replace('octdino run', 'octdino plan')}")
    print(f"Run it:                        {command}")


def _check_new(args: argparse.Namespace) -> None:
    """Raise UserError where a file would be written over."""
    for name in FILES if not args.force else ():
        if (args.out / name).exists():
            raise UserError(f"{args.out / name}: is there already; --force writes over it, or name another --out")


def _place(source: Path) -> tuple[Path, Path | None]:
    """Return root and table of a folder, or of a table.

    Raises:
        UserError: it is neither.
    """
    if source.is_dir():
        return source, None
    if source.is_file() and source.suffix.lower() in TABLES:
        return source.parent, source
    kinds = ", ".join(sorted(TABLES))
    raise UserError(
        f"{source}: {'no table' if source.exists() else 'no such folder or table'}; expected a folder, {kinds}"
    )


def _cohort_section(values: dict[str, Any]) -> dict[str, Any]:
    """Return the section `cohort` of a configuration, or the values themselves if they are one.

    Raises:
        UserError: the section is no mapping.
    """
    if not values.keys() & (Config.model_fields.keys() - CohortSettings.model_fields.keys()):
        return values
    section = values.get("cohort") or {}
    if not isinstance(section, dict):
        raise UserError(f"--settings: cohort: expected a mapping of settings, found {type(section).__name__}")
    return section


def _settings(values: dict[str, Any], root: Path, table: Path | None) -> CohortSettings:
    """Return the settings of the cohort; a table's folder is the root unless `values` has another one."""
    base: dict[str, Any] = {"name": "folder", **values}
    if table is not None:
        return CohortSettings.parse({"root": root, **base, "table": table}, "settings")
    return CohortSettings.parse({**base, "root": root}, "settings")


INSPECT_VERBS: Verbs = {"inspect": (_add_inspect, run_inspect), "init": (_add_init, run_init)}
