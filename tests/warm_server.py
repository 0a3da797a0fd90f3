"""Runs `octdino`, `snakemake`, and Python texts and modules, in forks of a process that has imported their modules.

Importing torch and timm takes seconds per command, and a small workflow has twenty of them. The clients stand for the
real programs on PATH: they pass their arguments, folder, environment and streams to this server, and end with the exit
code of the fork. The server imports the modules of a program when it is first asked for, and ends with its starter. A
program ends with its client.

Limits: all forks have the server's hash seed and its state of the global random generators, so equal files of two warm
runs do not prove that these have no effect; and an environment variable that is read at import has no effect. So
tests/workflow/test_resume.py and tests/workflow/test_kills.py, which compare files byte by byte, run the real programs.
"""

import array
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

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
ROOT = Path(__file__).parents[1]
STAGES = (
    "matplotlib.pyplot", "sklearn.linear_model", "octdino.augment.batch_augment", "octdino.inference.api",
    "octdino.inference.export_graph", "octdino.pretrain.trainer", "octdino.report",
)  # fmt: skip
WORKFLOW = ("snakemake.cli", "smart_open", "octdino.config", "octdino.snakemake_results", "octdino.terminal.run_view")
PROGRAMS = ("octdino", "snakemake", "warm-python")


@contextmanager
def warm_programs(folder: Path) -> Iterator[Path]:
    """Write one client per program into `folder`, which answers within this context; yields the server's socket."""
    with tempfile.TemporaryDirectory(prefix="warm-") as short:  # the path of a socket has at most 107 bytes
        address = Path(short) / "socket"
        for program in PROGRAMS:
            path = folder / program
            path.write_text(CLIENT.format(python=sys.executable, address=str(address), program=program))
            path.chmod(0o755)
        command = [sys.executable, str(Path(__file__)), str(address)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield address


def _receive(link: socket.socket) -> tuple[list[Any], list[int]]:
    """Return one request and the three streams that came with it.

    Raises:
        ConnectionError: the client ended before it had sent all of them.
    """
    head, control, _, _ = link.recvmsg(4, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    if not control:
        raise ConnectionError("no request")
    streams = array.array("i")
    streams.frombytes(control[0][2])
    (size,) = struct.unpack("!I", head)
    with link.makefile("rb") as file:
        said = file.read(size)
    if len(said) < size:
        _close(streams)
        raise ConnectionError("part of a request")
    return json.loads(said), list(streams)


def _close(streams: Iterable[int]) -> None:
    for stream in streams:
        os.close(stream)


def _run(program: str, arguments: list[str]) -> int:
    """Run a program in this process and return its exit code."""
    sys.argv = [program, *arguments]
    try:
        if program == "octdino":
            from octdino.cli import main

            if arguments[:1] == ["run"] and (own := shutil.which("octdino")):
                # Its jobs call the `octdino` of its installation: here that on PATH, which starts warm, too.
                patch.object(sysconfig, "get_path", return_value=str(Path(own).parent)).start()  # this process ends
            return main(arguments)
        if program == "snakemake":
            from snakemake.cli import main as snakemake

            snakemake(arguments)
            return 0
        kind, text, *sys.argv[1:] = arguments
        sys.path[0] = str(Path.cwd())  # as Python has it; before, tests/, whose folders have names of packages
        if kind == "-m":
            runpy.run_module(text, run_name="__main__", alter_sys=True)
        else:
            exec(compile(text, "document", "exec"), {"__name__": "__main__"})
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        sys.excepthook(*sys.exc_info())
        return 1


def _prepare(program: str, arguments: list[str]) -> None:
    """Import what a program needs."""
    if program == "snakemake":
        for name in WORKFLOW:
            importlib.import_module(name)
        from snakemake.cli import get_argument_parser

        get_argument_parser()  # loads the plugins
    elif program == "octdino" or arguments[0] == "-m":
        for name in STAGES:
            importlib.import_module(name)


def _answer(link: socket.socket, request: list[Any], streams: list[int]) -> None:
    """Run the program of a request in a fork, and send its exit code; the program ends with its client."""
    program, arguments, folder, environment = request
    os.setpgrp()  # of this process, the program, and the processes that it starts
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
    Thread(target=_kill_group_after_client, args=[link], daemon=True).start()
    _, status = os.waitpid(process, 0)
    _send(link, os.waitstatus_to_exitcode(status) & 0xFF)


def _kill_group_after_client(link: socket.socket) -> None:
    """Wait until the client has ended, then kill this process and all others of its group."""
    with suppress(ConnectionError):
        link.recv(1)  # clients send nothing after their request
    os.killpg(0, signal.SIGKILL)


def _send(link: socket.socket, code: int) -> None:
    """Send an exit code to a client that may have ended."""
    with suppress(BrokenPipeError):
        link.sendall(struct.pack("!i", code))


def _reap(*_: object) -> None:
    """Wait for the forks that have ended, so that their time counts as the server's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(address: str) -> None:
    """Answer until standard input is closed; prints one line when clients may begin."""
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            link, _ = listener.accept()
            with link:
                try:
                    request, streams = _receive(link)
                except ConnectionError:
                    continue
                try:
                    _prepare(*request[:2])
                except Exception:
                    with suppress(BrokenPipeError):
                        os.write(streams[2], traceback.format_exc().encode())
                    _send(link, 1)
                else:
                    if not os.fork():
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        listener.close()
                        _answer(link, request, streams)
                        os._exit(0)
                _close(streams)


if __name__ == "__main__":
    serve(sys.argv[1])
