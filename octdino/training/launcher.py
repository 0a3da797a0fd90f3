"""Start one command as several processes that train together, and end as they end.

torchrun would do for the start, but it hides the exit code (a run that was stopped and saved ends with 75), repeats
messages once a process, and kills after half a minute who is still saving.
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

PATIENCE = 10.0  # seconds that the others have to end by themselves once one has failed
PR_SET_PDEATHSIG = 1


def launched() -> bool:
    """Whether somebody has started this process as one of several: we, or torchrun."""
    return "RANK" in os.environ


def launch(arguments: list[str], processes: int, threads: int | None) -> int:
    """Run `octdino` with these arguments in `processes` processes on this machine.

    In a SLURM step of several nodes (`srun --nodes 2 --ntasks-per-node 1`) each node starts as many, and all train
    together.

    Args:
        threads: of all processes here; None: as many as OMP_NUM_THREADS says.

    Returns:
        0 done, 2 the user's mistake, 75 stopped early but saved, 1 one process died or failed, which is told.
    """
    node, address, port = _place()
    threads = threads or int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))
    common = {
        "WORLD_SIZE": nodes() * processes,
        "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": max(1, threads // processes),
    }
    with contextlib.ExitStack() as stack:
        children, words = [], []
        for local in range(processes):
            own = {**common, "RANK": node * processes + local, "LOCAL_RANK": local}
            first = own["RANK"] == 0
            # Only the first one speaks; the others' words are kept for the case that they fail.
            said = None if first else stack.enter_context(tempfile.TemporaryFile("w+"))
            words.append(said)
            children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "octdino.cli", *arguments],
                    env={**os.environ, **{name: str(value) for name, value in own.items()}},
                    stdout=said,
                    stderr=said,
                    preexec_fn=_die_with_parent,
                )
            )
        with _passing_on(children):
            return _outcome(children, words)


def _outcome(children: list["subprocess.Popen[bytes]"], words: Sequence[IO[str] | None]) -> int:
    while not (failed := [child for child in children if child.poll() not in (None, 0)]):
        if all(child.returncode == 0 for child in children):
            return 0
        time.sleep(0.05)
    # One that was killed comes before those that only miss it.
    culprit = min(failed, key=lambda child: int(child.returncode or 0))
    if culprit.returncode == EXIT_STOPPED:  # all stop at the same step; the first one may still be saving
        for child in children:
            child.wait()
    end = time.monotonic() + PATIENCE
    while any(child.poll() is None for child in children) and time.monotonic() < end:
        time.sleep(0.05)
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()
    codes = [child.returncode for child in children]
    if set(codes) == {EXIT_STOPPED}:
        return EXIT_STOPPED
    if words[0] is None and codes[0] == EXIT_USER:  # its line says what is wrong
        return EXIT_USER
    said = words[children.index(culprit)]
    if said is not None:
        said.seek(0)
        sys.stderr.write(said.read())
    print(
        f"octdino: process {children.index(culprit) + 1} of {len(children)} {_ending(culprit.returncode)}, and the "
        "others with it; run the same command again to go on from the last checkpoint",
        file=sys.stderr,
    )
    return EXIT_FAILED


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"


@contextlib.contextmanager
def _passing_on(children: list["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Signals that ask to stop go to all children, which save and end."""

    def pass_on(number: int, _: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    """In the child: a parent that is killed without warning leaves nobody behind; the children save and end."""
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def nodes() -> int:
    """How many machines this SLURM step has; 1 elsewhere."""
    return int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))


def _place() -> tuple[int, str, int]:
    """Which machine this is, and the address and port where the first one listens."""
    if nodes() == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return 0, "127.0.0.1", free.getsockname()[1]
    address = os.environ.get("MASTER_ADDR") or _first_host(os.environ["SLURM_STEP_NODELIST"])
    port = int(os.environ.get("MASTER_PORT") or 20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000)
    return int(os.environ["SLURM_NODEID"]), address, port


def _first_host(hosts: str) -> str:
    """The first of a list as SLURM writes it, such as node[03-04,07]."""
    done = subprocess.run(["scontrol", "show", "hostnames", hosts], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]
