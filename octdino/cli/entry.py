"""The program `octdino`: parse the command line, run one verb, print errors as one line, return an exit code."""

import logging
import os
import select
import sys

from octdino import __version__
from octdino.cli.flags import Parser
from octdino.cli.verbs import VERBS
from octdino.data.atomic_files import check_out
from octdino.errors import EXIT_CLOSED, EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USER, StoppedEarly, UserError, mistake
from octdino.training.launcher import launch, launched, nodes


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit code.

    0 done, 2 the user's mistake, 3 done but some files were refused, 75 stopped but saved, 130 interrupted, 141 whoever
    read the output has closed it (`octdino schema | head`).
    """
    try:
        return _run_verb(argv)
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return EXIT_CLOSED
    except SystemExit:  # of --help and of errors in the command line
        if _output_is_closed():
            sys.exit(EXIT_CLOSED)
        raise


def _output_is_closed() -> bool:
    """Whether standard output is a pipe that nobody reads; it is then replaced, or Python would complain at its end."""
    try:
        output = sys.stdout.fileno()
        poll = select.poll()
        poll.register(output, 0)  # errors are always reported
        closed = any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file, as in tests
        return False
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return closed


def _run_verb(argv: list[str] | None) -> int:
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:
        args.parser.refuse(unknown)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    if getattr(args, "threads", None):  # before numpy and torch are loaded
        os.environ["OMP_NUM_THREADS"] = str(max(1, args.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    try:
        if hasattr(args, "processes") and args.processes * nodes() > 1 and not launched():
            return launch(sys.argv[1:] if argv is None else argv, args.processes, args.threads)
        if getattr(args, "out", None) is not None and args.out_is != "either":
            check_out(args.out, file=args.out_is == "file")
        code = int(args.run(args) or 0)
        sys.stdout.flush()  # an error of the disk or the pipe is reported here, not at the end of Python
        return code
    except (UserError, OSError) as error:
        if (line := mistake(error)) is None:
            raise
        print(f"octdino {args.verb}: error: {line}", file=sys.stderr)
        return EXIT_USER
    except (StoppedEarly, KeyboardInterrupt) as stop:
        print(f"octdino {args.verb}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return EXIT_STOPPED if isinstance(stop, StoppedEarly) else EXIT_INTERRUPTED


def build_parser() -> Parser:
    """Return the parser of all verbs with all their flags."""
    parser = Parser(prog="octdino", description="Self-supervised pretraining on retinal OCT scans, compared fairly.")
    parser.add_argument("--version", action="version", version=f"octdino {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
    for name, (add, run) in VERBS.items():
        about = (run.__doc__ or "").strip()
        verb = verbs.add_parser(name, help=about.splitlines()[0], description=about)
        verb.set_defaults(run=run, parser=verb, out_is="folder")  # of --out; a verb may set file or either
        add(verb)
    return parser
