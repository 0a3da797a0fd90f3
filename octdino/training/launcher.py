"""Launcher of distributed training: start one command as several processes and return their exit code.

torchrun could start them, but it hides the exit code (75: stopped and saved), repeats messages once per process, and
kills a process that is still saving after half a minute.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO

from octdino.errors import EXIT_FAILED, EXIT_STOPPED, EXIT_USER

GRACE_SECONDS = 10.0  # for the other processes to end by themselves once one has failed
PR_SET_PDEATHSIG = 1


def launched() -> bool:
    """Return whether this process is one of several, started by this launcher or torchrun."""
    return "RANK" in os.environ


def processes() -> int:
    """Return the number of processes that were started together, on all machines; 1 for a process on its own."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch(arguments: list[str], processes: int, threads: int | None) -> int:
    """Run `octdino` with these arguments in `processes` processes on this machine.

    In a SLURM step of several nodes (`srun --nodes 2 --ntasks-per-node 1`) each node starts as many, and all
    train together.

    Args:
        threads: of all processes on this machine; None: OMP_NUM_THREADS.

    Returns:
        0 done, 2 the user's mistake, 75 stopped early but saved, 1 a process died or failed, with a message.
    """
    node, address, port = _rendezvous()
    threads = threads or int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))
    common = {
        "WORLD_SIZE": nodes() * processes,
        "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": max(1, threads // processes),
    }
    with contextlib.ExitStack() as stack:
        children, outputs = [], []
        for local in range(processes):
            environment = {**common, "RANK": node * processes + local, "LOCAL_RANK": local}
            # Only rank 0 prints; the output of the others is kept for the case that they fail.
            output = None if environment["RANK"] == 0 else stack.enter_context(tempfile.TemporaryFile("w+"))
            outputs.append(output)
            children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "octdino.cli", *arguments],
                    env={**os.environ, **{name: str(value) for name, value in environment.items()}},
                    stdout=output,
                    stderr=output,
                    preexec_fn=_die_with_parent,
                )
            )
        with _forward_signals(children):
            return _exit_code(children, outputs)


def _exit_code(children: list["subprocess.Popen[bytes]"], outputs: Sequence[IO[str] | None]) -> int:
    while not (failed := [child for child in children if child.poll() not in (None, 0)]):
        if all(child.returncode == 0 for child in children):
            return 0
        time.sleep(0.05)
    # A killed process first: the others fail because they lost their connection to it.
    culprit = min(failed, key=lambda child: int(child.returncode or 0))
    if culprit.returncode == EXIT_STOPPED:  # all stop at the same step; rank 0 may still be saving
        for child in children:
            child.wait()
    end = time.monotonic() + GRACE_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < end:
        time.sleep(0.05)
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()
    codes = [child.returncode for child in children]
    if set(codes) == {EXIT_STOPPED}:
        return EXIT_STOPPED
    if outputs[0] is None and codes[0] == EXIT_USER:  # rank 0 has printed the error
        return EXIT_USER
    output = outputs[children.index(culprit)]
    if output is not None:
        output.seek(0)
        sys.stderr.write(output.read())
    print(
        f"octdino: process {children.index(culprit) + 1} of {len(children)} {_ending(culprit.returncode)}; the others "
        "were ended; run the same command again to resume from the last checkpoint",
        file=sys.stderr,
    )
    return EXIT_FAILED


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"


@contextlib.contextmanager
def _forward_signals(children: list["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Forward SIGTERM and SIGINT to all children, which save and end."""

    def forward(number: int, _: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    handlers = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    """In the child: receive SIGTERM when the parent is killed, so that no process is orphaned."""
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def nodes() -> int:
    """Return the number of nodes of this SLURM step; 1 outside SLURM."""
    return int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))


def _rendezvous() -> tuple[int, str, int]:
    """Return the index of this node, and the address and port on which the first one listens."""
    if nodes() == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return 0, "127.0.0.1", free.getsockname()[1]
    address = os.environ.get("MASTER_ADDR") or _first_host(os.environ["SLURM_STEP_NODELIST"])
    port = int(os.environ.get("MASTER_PORT") or 20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000)
    return int(os.environ["SLURM_NODEID"]), address, port


def _first_host(hosts: str) -> str:
    """Return the first host of a SLURM node list such as node[03-04,07]."""
    done = subprocess.run(["scontrol", "show", "hostnames", hosts], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]
