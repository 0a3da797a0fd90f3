"""HTTP requests with limits on time and bytes: a server may send a byte per minute, or without end."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import requests
import urllib3

from octdino import __version__
from octdino.errors import UserError, one_line

TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
HEADER_SECONDS = 120.0  # until the headers of an answer are there, after all redirects
WINDOW = 60.0  # seconds over which the speed is measured
SLOWEST = 1000  # bytes per second; what is slower is ended
PIECE = 1 << 16  # bytes that are read at most at a time
AGENT = {"User-Agent": f"octdino/{__version__}"}  # some servers refuse the names of HTTP libraries
PASSING = {408, 425, 429, 500, 502, 503, 504}  # a server that may answer later


class ConnectionLost(Exception):  # noqa: N818  it is an outcome: another try may succeed
    """A connection that broke, was refused or was too slow; the message is one line with the cause."""


def open_url(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """Return the response to a GET request, with its body still to be read; the caller closes it.

    Raises:
        ConnectionLost: no connection, no answer within `HEADER_SECONDS`, or a status of `PASSING`.
        UserError: a URL, or one that it redirects to, that is not http or https, or too many redirects.
    """
    outcome: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            outcome.put(requests.get(url, headers=AGENT | (headers or {}), stream=True, timeout=TIMEOUT))
        except Exception as error:
            outcome.put(error)

    # A timeout of sockets counts from the last byte, so headers could come byte by byte. The thread ends with us.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = outcome.get(timeout=HEADER_SECONDS)
    except queue.Empty:
        raise ConnectionLost(f"no answer within {HEADER_SECONDS:g} s") from None
    if isinstance(answer, requests.ConnectionError | requests.Timeout | urllib3.exceptions.HTTPError):
        raise ConnectionLost(f"no connection: {_innermost(answer)}")
    if isinstance(answer, Exception):
        raise UserError(f"{url}: {one_line(answer)}")
    if answer.status_code in PASSING:
        answer.close()
        raise ConnectionLost(f"{answer.status_code} {answer.reason}")
    return answer


def read_pieces(answer: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield the body as it arrives, at most `limit` bytes; bytes that arrived before an error have been yielded.

    Raises:
        ConnectionLost: it broke, or came slower than `SLOWEST`.
    """
    begin, count = time.monotonic(), 0
    while limit > 0:
        try:
            piece = answer.raw.read1(min(PIECE, limit))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionLost(f"the connection broke: {_innermost(error)}") from None
        if not piece:
            return
        yield piece
        limit, count = limit - len(piece), count + len(piece)
        if (seconds := time.monotonic() - begin) >= WINDOW:
            if count < SLOWEST * seconds:
                raise ConnectionLost(f"{count} bytes in {seconds:.0f} s; expected {SLOWEST} bytes per second or more")
            begin, count = time.monotonic(), 0


def read_small(url: str, limit: int) -> bytes:
    """Return the whole body of a small response.

    Raises:
        UserError: there is none, or it is larger than `limit` bytes.
    """
    try:
        with closing(open_url(url)) as answer:
            if not answer.ok:
                raise UserError(f"{url}: {answer.status_code} {answer.reason}")
            content = b"".join(read_pieces(answer, limit + 1))
    except ConnectionLost as error:
        raise UserError(f"{url}: {error}") from None
    if len(content) > limit:
        raise UserError(f"{url}: more than {limit:,} bytes; expected a small answer")
    return content


def _innermost(error: BaseException) -> str:
    """Return the message of the first cause: requests wraps `Connection refused` four times."""
    while (further := error.__cause__ or error.__context__) is not None:
        error = further
    return one_line(error)
