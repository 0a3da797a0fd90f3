"""The local page as an ASGI application: GET / and its files, GET /model, POST /predict."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from octdino import __version__
from octdino.inference.pages import render_page
from octdino.inference.served_results import MOST_SCANS, Computation, Progress, Stopped, labels_of
from octdino.inference.uploads import Upload, shown_name
from octdino.inference.web_guard import Guard

if TYPE_CHECKING:  # of the extra octdino[serve]: imported where they are used
    from starlette.applications import Starlette
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger("octdino.inference")

MIB = 2**20
MOST_FILES = 32  # of one request
WAITING = 4  # requests that are accepted while another one is computed; their uploads are in memory
MOST_HEADERS = 64 * 1024  # of a multipart body, beside its files
CHUNK_SECONDS, UPLOAD_SECONDS = 30.0, 300.0  # longest pause in a body, and longest time for all of it
TYPES = {"page.css": "text/css", "serve.css": "text/css", "serve.js": "text/javascript"}


class Refusal(Exception):  # noqa: N818  it is an answer
    """A request that is answered with an error: HTTP status and one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class WebApp:
    """Handlers of the routes; one thread computes, so that one request uses the model at a time.

    Args:
        most_bytes: of the body of a request.
    """

    def __init__(self, computation: Computation, most_bytes: int) -> None:
        self.computation = computation
        self.most_bytes = most_bytes
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="octdino-serve")
        self.accepted = 0
        self.ending = threading.Event()
        folder = files("octdino.inference")
        self.files = {name: (folder / name).read_text(encoding="utf-8") for name in TYPES}
        self.page_text = self._render()

    def _render(self) -> str:
        metadata = self.computation.ensemble.first.metadata
        return render_page(
            "serve.html.j2",
            arm=metadata.arm, cohort=metadata.provenance.cohort, models=len(self.computation.ensemble.models),
            labels=self.computation.ensemble.labels, exclusive=metadata.exclusive, no_maps=self.computation.no_maps,
            intended_use=metadata.intended_use, most_bytes=self.most_bytes,
            most_mb=self.most_bytes // MIB, most_scans=MOST_SCANS,
        )  # fmt: skip

    async def page(self, request: "Request") -> "Response":
        """Return the page."""
        from starlette.responses import HTMLResponse

        return HTMLResponse(self.page_text)

    async def static(self, request: "Request") -> "Response":
        """Return a style sheet or the script of the page."""
        from starlette.responses import Response

        name = request.url.path.lstrip("/")
        return Response(self.files[name], media_type=TYPES[name])

    async def model(self, request: "Request") -> "Response":
        """Return what the model predicts and the bounds of a request, as JSON."""
        metadata = self.computation.ensemble.first.metadata
        value = {
            **labels_of(self.computation.ensemble), "arm": metadata.arm, "cohort": metadata.provenance.cohort,
            "models": len(self.computation.ensemble.models), "intended_use": metadata.intended_use,
            "version": __version__, "class_maps": self.computation.no_maps is None,
            "neighbors": self.computation.neighbors is not None, "most_bytes": self.most_bytes,
            "most_files": MOST_FILES, "most_scans": MOST_SCANS,
        }  # fmt: skip
        return _json(200, json.dumps(value, allow_nan=False))

    async def predict(self, request: "Request") -> "Response":
        """Return labels, pictures, class maps and nearest scans of the uploaded files, as JSON."""
        try:
            with self._place():
                return _json(200, await self._predict(request))
        except Refusal as refusal:
            headers = {"retry-after": "2"} if refusal.status == 503 else {}
            if refusal.status in (408, 413):  # the rest of the body is not read
                headers["connection"] = "close"
            return _json(refusal.status, json.dumps({"error": str(refusal)}), headers)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the places of accepted requests.

        Raises:
            Refusal: there is none.
        """
        if self.accepted > WAITING:
            raise Refusal(503, f"{self.accepted} requests are being answered; try again later")
        self.accepted += 1
        try:
            yield
        finally:
            self.accepted -= 1

    async def _predict(self, request: "Request") -> str:
        from starlette.datastructures import UploadFile

        form = await self._form(request)
        try:
            given = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            uploads = [Upload(shown_name(one.filename or "", n), one.file) for n, one in enumerate(given, 1)]
            if not uploads:
                raise Refusal(400, "no file; expected multipart/form-data with at least one file")
            pictures = request.query_params.get("pictures", "1") != "0"
            return await self._computed(request, uploads, pictures)
        finally:
            await form.close()

    async def _computed(self, request: "Request", uploads: list[Upload], pictures: bool) -> str:
        """Compute in the thread, until it is done or the client has gone."""
        gone = threading.Event()

        def compute() -> str:
            start = time.monotonic()
            progress = Progress(lambda: gone.is_set() or self.ending.is_set())
            value = self.computation.result(uploads, pictures, progress)
            refused = sum(len(file["refused"]) for file in value["files"])
            seconds = time.monotonic() - start
            log.info("%d files, %d scans, %d refused: %.1f s", len(uploads), progress.scans, refused, seconds)
            return json.dumps(value, allow_nan=False)

        computing = self.thread.submit(compute)
        done = asyncio.wrap_future(computing)
        done.add_done_callback(lambda future: future.cancelled() or future.exception())  # asyncio would log its message
        watch = asyncio.create_task(_wait_until_gone(request))
        try:
            ends: set[asyncio.Future[Any]] = {done, watch}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise Refusal(400, "the client has gone")
            return done.result()
        except Stopped as stop:
            raise Refusal(503, str(stop)) from None
        finally:  # also when the server ends: the thread then ends after its block
            gone.set()
            computing.cancel()
            watch.cancel()

    async def _form(self, request: "Request") -> "FormData":
        """Read a multipart body into memory.

        Raises:
            Refusal: another type, too many bytes or files, too slow, or no multipart body.
        """
        from starlette.formparsers import MultiPartException, MultiPartParser
        from starlette.requests import ClientDisconnect

        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise Refusal(415, "expected multipart/form-data, as a form or `curl -F` sends it")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most_bytes + MOST_HEADERS:
            raise self._too_large()
        parser = MultiPartParser(request.headers, self._body(request), max_files=MOST_FILES, max_fields=8)
        parser.spool_max_size = self.most_bytes + MOST_HEADERS  # in memory, never on a disk
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                return await parser.parse()
        except MultiPartException as error:
            raise Refusal(400, error.message) from None
        except ClientDisconnect:
            raise Refusal(400, "the upload was interrupted") from None
        except TimeoutError:
            raise Refusal(408, "the upload is too slow") from None

    def _too_large(self) -> Refusal:
        return Refusal(413, f"more than {self.most_bytes // MIB:,} MiB; expected at most that per request")

    async def _body(self, request: "Request") -> AsyncGenerator[bytes, None]:
        count = 0
        stream = request.stream()
        while True:
            async with asyncio.timeout(CHUNK_SECONDS):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            count += len(chunk)
            if count > self.most_bytes + MOST_HEADERS:
                raise self._too_large()
            yield chunk

    @asynccontextmanager
    async def lifespan(self, app: "Starlette") -> AsyncIterator[None]:
        """End the thread with the server: after its block at the latest, so that no private file stays."""
        yield
        self.ending.set()
        await asyncio.to_thread(self.thread.shutdown, wait=True, cancel_futures=True)


async def _wait_until_gone(request: "Request") -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.5)


def _json(status: int, text: str, headers: dict[str, str] | None = None) -> "Response":
    from starlette.responses import Response

    return Response(text, status, headers, media_type="application/json")


def make_app(computation: Computation, most_bytes: int, host: str = "127.0.0.1") -> Guard:
    """Return the ASGI application for a server on `host` that accepts requests of up to `most_bytes`."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    app = WebApp(computation, most_bytes)

    async def refused(request: Request, error: Exception) -> Response:
        text = getattr(error, "detail", f"unexpected {type(error).__name__}; the server continues")
        return _json(getattr(error, "status_code", 500), json.dumps({"error": str(text)}))

    routes = [
        Route("/", app.page), Route("/model", app.model), Route("/predict", app.predict, methods=["POST"]),
        *(Route(f"/{name}", app.static) for name in TYPES),
    ]  # fmt: skip
    handlers = {404: refused, 405: refused, 500: refused}
    return Guard(Starlette(routes=routes, lifespan=app.lifespan, exception_handlers=handlers), host)
