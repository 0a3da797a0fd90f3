"""Commands about the workflow itself: run, which is Snakemake with the installed Snakefile, presets, completion."""

import argparse
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from octdino.cli.flags import Parser, Verbs
from octdino.errors import UserError
from octdino.workflow_files import find, named, preset_path, presets, profiles, summary, workflow_folder, write_copy

SHELLS = ("bash", "zsh", "fish")
CLUSTER_EXTRA = ("cluster-generic", "lsf", "slurm")  # pyproject.toml
WITHOUT_PLUGIN = ("local", "dryrun", "touch")  # part of Snakemake
CONFIGURATION = ("--configfile", "--configfiles")
EXAMPLES = """\
Every argument is Snakemake's (snakemake --help), with three differences: the Snakefile is octdino's, a file of
--configfile that does not exist is looked up among the presets, a folder of --profile among the profiles.

  octdino run --cores all                                  the default run: the phantom cohort, or ./config.yaml
  octdino run --cores all --configfile olives mine.yaml    a preset, and your file over it
  octdino run -n                                           dry run: what would run, and why
  octdino run --profile slurm                              on a cluster; `octdino presets` lists both
"""


def _add_run(parser: Parser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "%(prog)s [-h] [SNAKEMAKE ARGUMENT ...]"
    parser.epilog = EXAMPLES
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="SNAKEMAKE ARGUMENT", help="see below")
    parser.prefix_chars = "\0"  # argparse otherwise takes -n and --cores out of the remaining arguments


def run_run(args: argparse.Namespace) -> None:
    """Run the workflow in this folder: Snakemake with the installed Snakefile."""
    if args.arguments in (["--help"], ["-h"]):
        args.parser.print_help()
        args.parser.exit()
    command = snakemake_command(args.arguments)
    scripts = sysconfig.get_path("scripts")
    # The rules call `octdino` by name: that of this installation, also where its environment is not activated.
    own, found = Path(scripts, "octdino"), shutil.which("octdino")
    if own.exists() and not (found and own.samefile(found)):
        os.environ["PATH"] = os.pathsep.join([scripts, *filter(None, [os.environ.get("PATH")])])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)  # so that signals reach Snakemake, and its exit code the caller


def snakemake_command(arguments: list[str]) -> list[str]:
    """Return the command line of Snakemake, with presets and profiles replaced by their paths.

    Raises:
        UserError: a configuration file is neither there nor a preset; the plugin that submits jobs is not installed.
    """
    snakefile = str(workflow_folder() / "Snakefile")
    return [sys.executable, "-m", "snakemake", "--snakefile", snakefile, *_with_paths(arguments)]


def _with_paths(arguments: list[str]) -> Iterator[str]:
    """Yield each argument; values of --configfile and --profile as the paths that are meant."""
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option, equals, value = argument.partition("=")
            yield option + equals + _value(option, value) if value else argument
        else:
            yield _value(option, argument)
            if option not in CONFIGURATION:  # which takes several
                option = ""


def _value(option: str, value: str) -> str:
    if option in CONFIGURATION:
        return str(preset_path(value))
    if option == "--profile":
        return _profile(value)
    if option in ("--executor", "-e"):
        check_executor(value, value)
    return value


def _profile(value: str) -> str:
    """Return the path of a profile if it is octdino's own; Snakemake finds those of the user and of the system."""
    from snakemake.cli import get_profile_dir

    place = get_profile_dir(value)
    own = None if place else find(value, profiles(), "profiles")
    file = place[1] if place else own / "config.yaml" if own else None
    if file and (executor := re.search(r"^executor: *([\w-]+)", file.read_text(encoding="utf-8"), re.MULTILINE)):
        check_executor(executor[1], f"profile {value}")
    # Absolute, so that the scripts of profiles/generic are found with --directory, too.
    return str(own or (Path(value).absolute() if Path(value).exists() else value))


def check_executor(name: str, given: str) -> None:
    """Raise UserError with the command that installs it if Snakemake's plugin for an executor is missing."""
    if name not in WITHOUT_PLUGIN and not importlib.util.find_spec(
        f"snakemake_executor_plugin_{name}".replace("-", "_")
    ):
        plugin = f"snakemake-executor-plugin-{name}"
        extra = "'octdino[cluster]'" if name in CLUSTER_EXTRA else plugin
        raise UserError(f"{given}: needs {plugin}, which is not installed; pip install {extra}")


def _add_presets(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this preset; without: list all")
    parser.add_argument("--out", type=Path, metavar="PATH", help="write a copy, for a profile with its folder")
    parser.set_defaults(out_is="either")


def run_presets(args: argparse.Namespace) -> None:
    """List the presets and profiles that are installed, print one, or copy one to edit it."""
    if args.out is not None:
        if args.name is None:
            raise UserError("--out: needs the NAME of a preset or profile")
        write_copy(args.name, args.out)
        return
    if args.name is not None:
        path = named(args.name)
        if path.is_dir() and len(list(path.iterdir())) > 1:
            raise UserError(f"{args.name}: is a folder with several files; give --out DIR to copy it")
        print((path / "config.yaml" if path.is_dir() else path).read_text(encoding="utf-8"), end="")
        return
    for title, paths in (
        ("presets: octdino run --cores all --configfile NAME", presets()),
        ("profiles: octdino run --profile NAME", {name: path / "config.yaml" for name, path in profiles().items()}),
    ):
        print(title)
        for name, path in paths.items():
            print(f"  {name:<18}{summary(path)}")


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read it")


def run_completion(args: argparse.Namespace) -> None:
    """Print the completion of octdino's verbs, flags and files for bash, zsh or fish: see docs/install.md."""
    from octdino.cli.completion import completion_script

    print(completion_script(args.shell), end="")


RUN_VERBS: Verbs = {
    "run": (_add_run, run_run),
    "presets": (_add_presets, run_presets),
    "completion": (_add_completion, run_completion),
}
