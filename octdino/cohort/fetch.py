"""One file from the web, right or not at all: resumed, retried, checked.

Pooch brings the checksums and its downloader's interface. Its own download starts again from nothing and goes to a
random name; here the bytes wait in `{name}.part` beside the file, so that 33 GB survive a night's broken connection.
"""

import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pooch
import requests

from octdino.cohort.web import SLOWEST, ConnectionLost, open_url, read_pieces
from octdino.data.disk_space import amount, check_disk
from octdino.errors import UserError, short
from octdino.progress import progress

MEGABYTE = 1_000_000
TRIES = 5  # that bring nothing, or less than `SLOWEST` bytes per second
WAIT = 2.0  # seconds before the second try, twice as long before each further one
LARGEST = 10**10  # bytes of a file whose size is not known before; the largest of these cohorts has 2.6 GB
CHECKSUM = r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"

log = logging.getLogger("octdino.fetch")


def fetch(url: str, path: Path, checksum: str, size: int | None = None) -> Path:
    """The file of `url` at `path`, which appears only when it is complete and right; returns `path`.

    Nothing is sent again that is there already: neither the file if its checksum is right, nor the first bytes of a
    download that broke off.

    Args:
        url: http or https.
        path: where to put it; folders are made.
        checksum: "md5:…", "sha256:…" or "sha512:…".
        size: bytes, if known before asking the server.

    Raises:
        UserError: no network, no such file, too little disk, a file with another checksum or size, or no checksum
            that is known.
    """
    if not re.fullmatch(CHECKSUM, checksum):
        raise UserError(f"{url}: checksum {short(checksum)}; expected md5:, sha256: or sha512: and its digits")
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
        self.expected, self.path = size, path
        self.size = size  # as expected, else as the server says
        self.tag = ""  # what the server called this state of the file

    def __call__(self, url: str, output_file: Any, pooch: Any = None, check_only: bool | None = False) -> None:
        """Fill `output_file` until it is complete.

        Raises:
            UserError: as `fetch`.
        """
        part, tries = Path(output_file), 0
        most, since = _length(part), time.monotonic()
        while not self._complete(part):
            try:
                if self._request(url, part):
                    return
                why = "the server closed the connection"
            except ConnectionLost as error:
                why = str(error)
            gain, now = _length(part) - most, time.monotonic()
            tries = 1 if gain > 0 and gain >= SLOWEST * (now - since) else tries + 1
            most, since = max(most, _length(part)), now  # a beginning that is sent again and again is no gain
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
        with closing(open_url(url, headers)) as answer:
            total = self._total(answer)
            if answer.status_code == 416 and have and total == have:  # nothing is missing
                return True
            fits = f"bytes {have}-" in answer.headers.get("Content-Range", "") and self.size in (None, total)
            if have and (answer.status_code == 416 or (answer.status_code == 206 and not fits)):
                part.unlink()
                return False
            if answer.status_code not in (200, 206) or (answer.status_code == 206 and not fits):
                raise self._failed(url, part, f"{answer.status_code} {answer.reason}")
            if answer.status_code == 200:  # the whole file: ranges are ignored, or it changed
                have = 0
            self._check_total(url, part, total)
            tag = answer.headers.get("ETag", "")
            self.tag = "" if tag.startswith("W/") else tag  # a weak one is no promise of equal bytes
            self.size = total
            self._check_disk(part, have)
            limit = self._limit(part) if total is None else total
            self._write(answer, part, have, limit)
            if total is None and _length(part) >= limit:
                part.unlink()
                raise self._failed(url, part, "it sends without end and does not say how much; nothing is kept")
            return total is None or _length(part) >= total

    def _write(self, answer: requests.Response, part: Path, have: int, limit: int) -> None:
        """Add what the server sends; the file never grows beyond `limit` bytes."""
        count = -(-(limit - have) // MEGABYTE)
        name = self.path.name if self.path else part.name
        with part.open("ab" if have else "wb") as file:

            def megabytes() -> Iterator[None]:
                since = 0
                for piece in read_pieces(answer, limit - have):
                    file.write(piece)
                    since += len(piece)
                    while since >= MEGABYTE:
                        since -= MEGABYTE
                        yield

            for _ in progress(megabytes(), count, f"fetching {name}", "megabyte"):
                pass

    def _total(self, answer: requests.Response) -> int | None:
        """The whole file's bytes, if the server says so, else as expected."""
        span = answer.headers.get("Content-Range", "").rpartition("/")[2]
        length = span or (answer.headers.get("Content-Length", "") if answer.status_code == 200 else "")
        return int(length) if re.fullmatch("[0-9]{1,18}", length) else self.expected

    def _check_total(self, url: str, part: Path, total: int | None) -> None:
        if self.expected is not None and total != self.expected:
            raise self._failed(url, part, f"the server's file has {total} bytes; expected {self.expected}")
        if self.expected is None and total is not None and total > LARGEST:
            raise self._failed(url, part, f"the server's file has {total} bytes; expected at most {LARGEST}")

    def _limit(self, part: Path) -> int:
        """The most bytes of a file whose size nobody says: half of the disk stays free."""
        return min(LARGEST, (shutil.disk_usage(part.parent).free + _length(part)) // 2)

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
