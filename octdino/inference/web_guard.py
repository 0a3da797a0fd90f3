"""ASGI guard around the local page: which requests are answered at all, and the headers of every answer.

A page of any other site that is open in the same browser can send requests to a loopback address. The guard refuses
host names that are not this server's (DNS rebinding) and POST requests that another site sends.
"""

import ipaddress
import json
import logging
import socket
import traceback
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("octdino.inference")

HEADERS = {
    # Nothing from elsewhere, nothing inline; pictures come as data URLs within the answers.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Return whether a host name or IP address is of this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that checks Host and origin, adds `HEADERS`, and answers an unexpected error with status 500.

    Args:
        host: the name or address that the server listens on.
    """

    def __init__(self, app: "ASGIApp", host: str) -> None:
        self.app = app
        self.loopback = is_loopback(host)
        names = {host, "localhost"} if self.loopback else {host, "localhost", socket.gethostname(), socket.getfqdn()}
        self.names = {name.lower() for name in names}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_with_headers(message: "Message") -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refusal(scope["method"], headers):
            await _answer(send_with_headers, *refusal)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:  # its message may quote a file's name or header: only place and class are logged
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("unexpected %s at %s:%d", type(error).__name__, Path(place.filename).name, place.lineno or 0)
            if not begun:
                await _answer(send_with_headers, 500, f"unexpected {type(error).__name__}; the server continues")

    def _refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and text for a request that is refused, None for one that is answered."""
        host = headers.get("host", "")
        if not self._is_own(host):
            return 400, "the Host header names another server"
        if method in ("GET", "HEAD"):
            return None
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return 403, "a request of another site"
        origin = headers.get("origin")  # browsers send it with every POST; curl and scripts do not
        if origin is not None and origin.lower() != f"http://{host}".lower():
            return 403, "a request of another site"
        return None

    def _is_own(self, host: str) -> bool:
        """Return whether a Host header may be this server's.

        An IP address is no name that somebody else's DNS answers. The port may be that of an SSH tunnel.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback


async def _answer(send: "Send", status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
