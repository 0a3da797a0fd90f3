"""`octdino serve MODEL`: a local page that shows the labels of dropped scans and volumes."""

import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from octdino.errors import UserError
from octdino.inference.ensemble import load_ensemble
from octdino.inference.neighbors import Gallery
from octdino.inference.served_results import Computation, GalleryNeighbors, reason_without_maps
from octdino.inference.web_app import MIB, make_app
from octdino.inference.web_guard import Guard, is_loopback
from octdino.training.determinism import set_determinism

if TYPE_CHECKING:
    from uvicorn import Server

log = logging.getLogger("octdino.inference")

NEEDED = ("starlette", "uvicorn", "python_multipart")
CONNECTIONS = 64  # open at a time; a browser has up to six
SECONDS_TO_END = 5  # for answers under way when the server ends


@dataclass(frozen=True)
class ServeOptions:
    """Where `serve` listens and what it computes.

    Attributes:
        port: 0 for any free one.
        gallery: embeddings.h5 whose nearest scans are shown.
        most_mb: largest upload, MiB.
        precision: float32, bfloat16 or auto, as in pretraining.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    gallery: Path | None = None
    most_mb: int = 200
    precision: str = "float32"


def serve(models: Sequence[Path], options: ServeOptions) -> None:
    """Answer requests until Ctrl-C; the page's address is printed when it can be opened.

    Raises:
        UserError: the extra octdino[serve] is not installed, host or port cannot be used, or no model or gallery.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"needs {', '.join(missing)}; install with: pip install 'octdino[serve]'")
    with _bound(options.host, options.port) as listener:
        set_determinism(True)
        app = make_app(_computation(models, options), options.most_mb * MIB, options.host)
        server = server_of(app)
        listener.listen()  # a browser that opens the address now waits for the server
        if not is_loopback(options.host):
            log.warning("--host %s: whoever reaches it can use the page; no password, no encryption", options.host)
        port = listener.getsockname()[1]
        shown = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{shown}:{port}/ (Ctrl-C ends the server)", flush=True)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after its own end
            server.run(sockets=[listener])


def server_of(app: Guard) -> "Server":
    """Return the HTTP server of an application; it logs no request."""
    from uvicorn import Config, Server

    return Server(
        Config(
            app, log_config=None, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
            http="h11", ws="none", loop="asyncio", lifespan="on", limit_concurrency=CONNECTIONS, timeout_keep_alive=10,
            timeout_graceful_shutdown=SECONDS_TO_END,
        )
    )  # fmt: skip


def _computation(models: Sequence[Path], options: ServeOptions) -> Computation:
    ensemble = load_ensemble(models, options.precision)
    neighbors = GalleryNeighbors(Gallery(options.gallery, ensemble.first)) if options.gallery else None
    no_maps = reason_without_maps(ensemble)
    if no_maps:
        log.info("%s", no_maps)
    return Computation(ensemble, no_maps, neighbors)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet.

    Raises:
        UserError: no such host, or a port that is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host {host}: no such host; expected a name or an IP address of this machine") from None
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise UserError(f"--host {host} --port {port}: {error.strerror}; --port 0 takes any free port") from None
    return found
