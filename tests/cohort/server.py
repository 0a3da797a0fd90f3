"""A web server of this machine for tests: a folder of files, ranges, and connections that break."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Request:
    """One request: its path, the byte it asked to start at (None: no Range), status and how many bytes were sent."""

    path: str
    start: int | None
    status: int = 0
    sent: int = 0


@dataclass
class Site:
    """A folder served on loopback; the options may be changed while it runs.

    Attributes:
        folder: whose files are served.
        url: without a final slash.
        cut: break the connection after so many bytes of the next answer, once.
        cuts: the same, of every answer.
        misbehave: answers in place of the server, if it returns True.
        ranges: whether Range is honoured.
        busy: answer so many requests with 503 first.
        requests: what was asked, in order.
    """

    folder: Path
    url: str = ""
    cut: int | None = None
    ranges: bool = True
    busy: int = 0
    cuts: int | None = None
    misbehave: "Callable[[_Handler], bool] | None" = None
    requests: list[Request] = field(default_factory=list)


@contextmanager
def serve(folder: Path, cut: int | None = None, ranges: bool = True) -> Iterator[Site]:
    """Serve the files below `folder` until the block ends."""
    site = Site(folder, cut=cut, ranges=ranges)

    class Handler(_Handler):
        pass

    Handler.site = site
    with _Server(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that ends the connection is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        asked = Request(unquote(urlsplit(self.path).path), _start(self.headers.get("Range")))
        site.requests.append(asked)
        if site.misbehave and site.misbehave(self):
            self.close_connection = True
            return None
        file = site.folder / asked.path.lstrip("/")
        if site.busy:
            site.busy -= 1
            return self._answer(asked, 503)
        if not file.is_file():
            return self._answer(asked, 404)
        content = file.read_bytes()
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = asked.start if site.ranges and self.headers.get("If-Range", tag) == tag else None
        headers = {"ETag": tag}
        if start is None:
            return self._answer(asked, 200, content, headers)
        if start >= len(content):
            return self._answer(asked, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return self._answer(asked, 206, content[start:], headers | span)

    def _answer(self, asked: Request, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        asked.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.site.cut is not None and len(body) > self.site.cut:
            body, self.site.cut = body[: self.site.cut], None
        body = body[: self.site.cuts]
        asked.sent = len(body)  # before it is: the client may be done and ask while this thread waits
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Nothing: the test reads `requests`."""


def _start(header: str | None) -> int | None:
    return int(header.removeprefix("bytes=").split("-")[0]) if header else None
