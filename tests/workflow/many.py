"""Many dry runs for the price of one start: Snakemake is imported once, each run is a fork of this process.

Reads a JSON list of argument lists from standard input; prints a JSON list of [exit code, output].
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import snakemake.cli
import snakemake.persistence


def start(arguments: list[str], output: Path) -> int:
    """Run Snakemake with `arguments` in a fork and return its process id."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    handle = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ["snakemake", *arguments]
    try:
        snakemake.cli.main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Two at a time."""
    snakemake.cli.get_argument_parser()  # loads the plugins
    wanted = json.load(sys.stdin)
    codes = [0] * len(wanted)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(number)) for number in range(len(wanted))]
        running: dict[int, int] = {}
        for number, arguments in enumerate(wanted):
            running[start(arguments, outputs[number])] = number
            while len(running) == 2 or (running and number == len(wanted) - 1):
                process, status = os.wait()
                codes[running.pop(process)] = os.waitstatus_to_exitcode(status)
        json.dump([[code, path.read_text()] for code, path in zip(codes, outputs, strict=True)], sys.stdout)


main()
