"""One file from the web, right or not at all: resumed, retried, checked.

Pooch brings the checksums and its downloader's interface. Its own download starts again from nothing and goes to a
random name; here the bytes wait in `{name}.part` beside the file, so that 33 GB survive a night's broken connection.
"""

import logging
import time
from pathlib import Path
from typing import Any

import pooch
import requests

from octdino.disk import amount, check_disk
from octdino.errors import UserError
from octdino.progress import progress

MEGABYTE = 1_000_000
TRIES = 5  # without a byte between them
WAIT = 2.0  # seconds before the second try, twice as long before each further one
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
PASSING = {408, 425, 429, 500, 502, 503, 504}  # a server that may answer later

log = logging.getLogger("octdino.fetch")


def fetch(url: str, path: Path, checksum: str, size: int | None = None) -> Path:
    """The file of `url` at `path`, which appears only when it is complete and right; returns `path`.

    Nothing is sent again that is there already: neither the file if its checksum is right, nor the first bytes of a
    download that broke off.

    Args:
        url: http or https.
        path: where to put it; folders are made.
        checksum: "md5:…" or "sha256:…".
        size: bytes, if known before asking the server.

    Raises:
        UserError: no network, no such file, too little disk, or a file with another checksum.
    """
    if path.is_file():
        log.info("%s: there already, checking it", path)
        if _hash(path, checksum) == checksum:
            return path
        log.warning("%s: not the file of %s; replaced when that is here", path, url)
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.is_file() and part.stat().st_size > 0
    download = ResumingDownloader(size, path)
    download(url, part)
    got = _hash(part, checksum)
    if resumed and got != checksum:  # the beginning was of another file
        log.warning("%s: what was there did not fit; once more from the start", path)
        part.unlink()
        download(url, part)
        got = _hash(part, checksum)
    if got != checksum:
        part.unlink()
        raise UserError(f"{url}: wrong checksum: expected {checksum}, got {got}; the file was deleted, fetch it again")
    part.replace(path)
    return path


class ResumingDownloader:
    """A downloader in pooch's sense that adds what is missing to a file that is there in part."""

    def __init__(self, size: int | None = None, path: Path | None = None) -> None:
        """`size` in bytes if known; `path` is where messages say that the file may be put by hand."""
        self.size, self.path = size, path
        self.tag = ""  # what the server called this state of the file

    def __call__(self, url: str, output_file: Any, pooch: Any = None, check_only: bool | None = False) -> None:
        """Fill `output_file` until it is complete.

        Raises:
            UserError: as `fetch`.
        """
        part, tries = Path(output_file), 0
        while not self._complete(part):
            before = _length(part)
            try:
                if self._request(url, part):
                    return
                why = "the server closed the connection"
            except requests.RequestException as error:
                why = cause(error)
            tries = 1 if _length(part) > before else tries + 1
            if tries >= TRIES:
                raise self._failed(url, part, why)
            log.warning("%s: %s; %d bytes are here, going on", url, why, _length(part))
            time.sleep(WAIT * 2 ** (tries - 1))

    def _complete(self, part: Path) -> bool:
        return part.is_file() and self.size is not None and _length(part) == self.size

    def _request(self, url: str, part: Path) -> bool:
        """One connection; whether the file is complete after it."""
        have = _length(part)
        self._check_disk(part, have)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": self.tag} if self.tag else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            total = self._total(answer, have)
            if answer.status_code == 416 and total == have:  # nothing is missing
                return True
            fits = f"bytes {have}-" in answer.headers.get("Content-Range", "") and self.size in (None, total)
            if answer.status_code == 416 or (answer.status_code == 206 and not fits):
                part.unlink()
                return False
            if not answer.ok and answer.status_code not in PASSING:
                raise self._failed(url, part, f"{answer.status_code} {answer.reason}")
            answer.raise_for_status()
            if answer.status_code != 206:  # the whole file: ranges are ignored, or it changed
                have = 0
            tag = answer.headers.get("ETag", "")
            self.tag = "" if tag.startswith("W/") else tag  # a weak one is no promise of equal bytes
            self.size = total if self.size is None else self.size
            self._check_disk(part, have)
            self._write(answer, part, have, total)
            return total is None or _length(part) >= total

    def _write(self, answer: requests.Response, part: Path, have: int, total: int | None) -> None:
        count = -(-((total or have) - have) // MEGABYTE)
        name = self.path.name if self.path else part.name
        with part.open("ab" if have else "wb") as file:
            for chunk in progress(answer.iter_content(MEGABYTE), count, f"fetching {name}", "megabyte"):
                file.write(chunk)

    def _total(self, answer: requests.Response, have: int) -> int | None:
        """The whole file's bytes, if the server says so."""
        span = answer.headers.get("Content-Range", "").rpartition("/")[2]
        length = span or answer.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else self.size

    def _check_disk(self, part: Path, have: int) -> None:
        if self.size is not None:
            check_disk(part.parent, self.size - have, part.stem)

    def _failed(self, url: str, part: Path, why: str) -> UserError:
        rest = f"; {amount(_length(part))} are kept, run it again to go on" if _length(part) else ""
        return UserError(f"{url}: {why}{rest}; or fetch it elsewhere and put it at {self.path or part}")


def _hash(path: Path, like: str) -> str:
    """The file's checksum in the form of `like`."""
    kind = like.partition(":")[0]
    return f"{kind}:{pooch.file_hash(str(path), alg=kind)}"


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def cause(error: requests.RequestException) -> str:
    """One line; of a connection that failed the innermost reason: requests wraps `Connection refused` four times."""
    if not isinstance(error, requests.ConnectionError | requests.Timeout):
        return str(error)
    inner: BaseException = error
    while (further := inner.__cause__ or inner.__context__) is not None:
        inner = further
    return f"no connection: {inner}"
