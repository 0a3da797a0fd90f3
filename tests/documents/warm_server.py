"""Runs `octdino`, `snakemake` and Python texts in forks of a process that has imported everything.

Importing torch and timm takes seconds per command, and a small workflow has twenty of them. `PROGRAMS` are clients that
stand for the real programs on PATH: they pass their arguments, folder, environment and streams to this server, and end
with the exit code of the fork.
"""

import array
import importlib
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

CLIENT = """#!{python} -IS
import array, json, os, socket, struct, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    said = json.dumps([{program!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    streams = array.array("i", [0, 1, 2]).tobytes()
    link.sendmsg([struct.pack("!I", len(said))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    link.sendall(said)
    code = link.recv(4)
sys.exit(struct.unpack("!i", code)[0] if code else 1)
"""
IMPORTED = (
    "matplotlib.pyplot", "sklearn.linear_model", "octdino.augment.batch_augment", "octdino.inference.api",
    "octdino.inference.export_graph", "octdino.pretrain.trainer", "octdino.report",
)  # fmt: skip
PROGRAMS = ("octdino", "snakemake", "run-python")


def write_clients(folder: Path, address: Path) -> None:
    """Write one client per program into `folder`."""
    for program in PROGRAMS:
        path = folder / program
        path.write_text(CLIENT.format(python=sys.executable, address=str(address), program=program))
        path.chmod(0o755)


def _receive(link: socket.socket) -> tuple[list[str | list[str] | dict[str, str]], list[int]]:
    """Return one request and the three streams that came with it."""
    head, control, _, _ = link.recvmsg(4, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(control[0][2])
    size, said = struct.unpack("!I", head)[0], b""
    while len(said) < size:
        said += link.recv(size - len(said))
    return json.loads(said), list(streams)


def _run(program: str, arguments: list[str]) -> int:
    """Run a program of PROGRAMS in this process and return its exit code."""
    sys.argv = [program, *arguments]
    try:
        if program == "octdino":
            from octdino.cli import main

            return main(arguments)
        if program == "snakemake":
            from snakemake.cli import main as snakemake

            snakemake(arguments)
            return 0
        exec(compile(arguments[0], "document", "exec"), {"__name__": "__main__"})
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        sys.excepthook(*sys.exc_info())
        return 1


def _answer(link: socket.socket) -> None:
    """Fork for one connection: the child of the child runs the program, its parent sends the exit code."""
    (program, arguments, folder, environment), streams = _receive(link)
    process = os.fork()
    if not process:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        link.close()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        code = _run(program, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(process, 0)
    link.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status) & 0xFF))


def serve(address: str) -> None:
    """Answer until killed; prints one line when everything is imported."""
    for name in IMPORTED:
        importlib.import_module(name)
    from snakemake.cli import get_argument_parser

    get_argument_parser()  # loads the plugins
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended forks leave nothing behind
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            link, _ = listener.accept()
            with link:
                if not os.fork():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    listener.close()
                    _answer(link)
                    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
