"""A server of the local page in a thread of the test, on a free loopback port."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from octdino.inference.ensemble import load_ensemble
from octdino.inference.serve import server_of
from octdino.inference.served_results import Computation, reason_without_maps
from octdino.inference.web_app import MIB, make_app


def computation_of(*models: Path, neighbors=None) -> Computation:
    ensemble = load_ensemble(models)
    return Computation(ensemble, reason_without_maps(ensemble), neighbors)


@contextmanager
def serving(computation, most_bytes: int = 4 * MIB, host: str = "127.0.0.1") -> Iterator[str]:
    """Yield the address of a server, without a slash at its end."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = server_of(make_app(computation, most_bytes, host))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


def send(address: str, *files: tuple[str, bytes], query: str = "?pictures=0", **others) -> requests.Response:
    """POST files, given as name and content."""
    return requests.post(
        f"{address}/predict{query}", files=[("file", one) for one in files], timeout=60, **others
    )  # fmt: skip


def pages(images: np.ndarray) -> bytes:
    """Return a TIFF with one page per image, uint8 [N, 1, H, W]: the simplest volume."""
    first, *others = [Image.fromarray(image[0]) for image in images]
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=others)
    return buffer.getvalue()


def refusal(response: requests.Response) -> tuple[int, str]:
    """Return status and text of an error."""
    return response.status_code, response.json()["error"]
