"""The server of programs that start warm outlives clients that are killed, and programs end with their clients."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm_server import warm_programs

SLEEPS = "import subprocess; print('started', flush=True); subprocess.run(['sleep', '300'])"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose path is longer than that of a socket may be."""
    folder = tmp_path / ("folder" * 20)
    folder.mkdir()
    return folder


@pytest.fixture
def address(folder: Path) -> Iterator[Path]:
    """The socket of a server whose clients are in `folder`."""
    with warm_programs(folder) as address:
        yield address


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `warm-python` with arguments."""
    return subprocess.run([folder / "warm-python", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("sent", ["nothing", "no streams", "streams and part of the request"])
def test_client_that_ends_before_its_request_is_sent_does_not_end_the_server(
    sent: str, folder: Path, address: Path
) -> None:
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(address))
        if sent == "no streams":
            link.sendall(b"\0\0\0\x09")
        elif sent == "streams and part of the request":
            socket.send_fds(link, [b"\0\0\0\x09"], [writer] * 3)
            link.sendall(b"[")
    os.close(writer)
    done = run(folder, "-c", "print('out'); raise SystemExit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # BlockingIOError if the server still had the streams open
    os.close(reader)


def test_error_before_the_start_of_a_program_goes_to_its_client(folder: Path, address: Path) -> None:
    done = run(folder)  # `python` without a text or module
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "IndexError" in done.stderr
    assert run(folder, "-c", "").returncode == 0


def test_killed_client_ends_its_program_and_what_that_started(
    folder: Path, address: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([folder / "warm-python", "-c", SLEEPS], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "started\n"
        client.kill()
        client.communicate(timeout=60)  # returns when all processes that hold the stream have ended
    assert run(folder, "-c", "").returncode == 0
    assert capfd.readouterr().err == ""
