"""Download of one file over HTTP: resumed, retried, checked by its checksum, complete or not there at all.

The bytes received so far stay in `{name}.part` beside the file, so that a broken connection does not lose 33 GB.
"""

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import requests

from octdino.cohort.web import SLOWEST, ConnectionLost, open_url, read_pieces
from octdino.data.disk_space import amount, check_disk
from octdino.errors import UserError, short
from octdino.progress import progress

MEGABYTE = 1_000_000
TRIES = 5  # in a row that bring no bytes, or less than `SLOWEST` bytes per second
WAIT = 2.0  # seconds before the second try, twice as long before each further one
LARGEST = 10**10  # bytes of a file of unknown size; the largest archive of these cohorts has 2.6 GB
CHECKSUM = r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"

log = logging.getLogger("octdino.fetch")


def fetch(url: str, path: Path, checksum: str, size: int | None = None) -> Path:
    """Download `url` to `path`, which appears only when it is complete and its checksum is right; return `path`.

    A file with the right checksum is not downloaded again, and a broken download resumes after its last byte.

    Args:
        url: http or https address.
        path: file to write; missing folders are created.
        checksum: "md5:…", "sha256:…" or "sha512:…".
        size: bytes, if known before the request.

    Raises:
        UserError: no network, no such file, too little disk space, a file with another checksum or size, or a checksum
            of another kind.
    """
    if not re.fullmatch(CHECKSUM, checksum):
        raise UserError(f"{url}: checksum {short(checksum)}; expected md5:, sha256: or sha512: and its digits")
    if path.is_file():
        log.info("%s: exists already, checking it", path)
        if _hash(path, checksum) == checksum:
            return path
        log.warning("%s: not the file of %s; replaced when the download is complete", path, url)
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.is_file() and part.stat().st_size > 0
    download = Download(url, path, part, size)
    download.run()
    got = _hash(part, checksum)
    if resumed and got != checksum:  # the partial download was of another file
        log.warning("%s: the partial download was of another file; downloading again from the start", path)
        part.unlink()
        download.run()
        got = _hash(part, checksum)
    if got != checksum:
        part.unlink()
        raise UserError(f"{url}: wrong checksum: expected {checksum}, got {got}; the file was deleted, fetch it again")
    part.replace(path)
    return path


class Download:
    """A resumable download of `url` to the partial file `part`.

    Attributes:
        path: final file, for messages.
        expected: bytes, if known before the request.
        size: bytes as expected, else as the server's headers have it.
        tag: the server's ETag; a resumed request is for this version of the file only.
    """

    def __init__(self, url: str, path: Path, part: Path, expected: int | None = None) -> None:
        self.url, self.path, self.part = url, path, part
        self.expected = self.size = expected
        self.tag = ""

    def run(self) -> None:
        """Append to the partial file until it is complete.

        Raises:
            UserError: as `fetch`.
        """
        most, since, tries = self._length(), time.monotonic(), 0
        while not self._complete():
            try:
                if self._request():
                    return
                reason = "the server closed the connection"
            except ConnectionLost as error:
                reason = str(error)
            gain, now = self._length() - most, time.monotonic()
            tries = 1 if gain > 0 and gain >= SLOWEST * (now - since) else tries + 1
            most, since = max(most, self._length()), now  # bytes that were received before do not count as progress
            if tries >= TRIES:
                raise self._failed(reason)
            log.warning("%s: %s; resuming after %d bytes", self.url, reason, self._length())
            time.sleep(WAIT * 2 ** (tries - 1))

    def _complete(self) -> bool:
        return self.part.is_file() and self.size is not None and self._length() == self.size

    def _request(self) -> bool:
        """Make one request; return whether the file is complete after it."""
        have = self._length()
        self._check_disk(have)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": self.tag} if self.tag else {})
        with closing(open_url(self.url, headers)) as answer:
            total = self._total(answer)
            if answer.status_code == 416 and have and total == have:  # nothing is missing
                return True
            fits = f"bytes {have}-" in answer.headers.get("Content-Range", "") and self.size in (None, total)
            if have and (answer.status_code == 416 or (answer.status_code == 206 and not fits)):
                self.part.unlink()
                return False
            if answer.status_code not in (200, 206) or (answer.status_code == 206 and not fits):
                raise self._failed(f"{answer.status_code} {answer.reason}")
            if answer.status_code == 200:  # the whole file: the server ignores ranges, or the file has changed
                have = 0
            self._check_total(total)
            tag = answer.headers.get("ETag", "")
            self.tag = "" if tag.startswith("W/") else tag  # a weak ETag does not promise equal bytes
            self.size = total
            self._check_disk(have)
            limit = self._limit() if total is None else total
            self._write(answer, have, limit)
            if total is None and self._length() >= limit:
                self.part.unlink()
                raise self._failed("it sends without end and does not say how much; nothing is kept")
            return total is None or self._length() >= total

    def _write(self, answer: requests.Response, have: int, limit: int) -> None:
        """Append the body of the answer; the file never grows beyond `limit` bytes."""
        count = -(-(limit - have) // MEGABYTE)
        with self.part.open("ab" if have else "wb") as file:

            def megabytes() -> Iterator[None]:
                since = 0
                for piece in read_pieces(answer, limit - have):
                    file.write(piece)
                    since += len(piece)
                    while since >= MEGABYTE:
                        since -= MEGABYTE
                        yield

            for _ in progress(megabytes(), count, f"fetching {self.path.name}", "megabyte"):
                pass

    def _total(self, answer: requests.Response) -> int | None:
        """The bytes of the whole file as the headers have it, else as expected."""
        span = answer.headers.get("Content-Range", "").rpartition("/")[2]
        length = span or (answer.headers.get("Content-Length", "") if answer.status_code == 200 else "")
        return int(length) if re.fullmatch("[0-9]{1,18}", length) else self.expected

    def _check_total(self, total: int | None) -> None:
        if self.expected is not None and total != self.expected:
            raise self._failed(f"the server's file has {total} bytes; expected {self.expected}")
        if self.expected is None and total is not None and total > LARGEST:
            raise self._failed(f"the server's file has {total} bytes; expected at most {LARGEST}")

    def _limit(self) -> int:
        """The most bytes of a file of unknown size: half of the disk stays free."""
        return min(LARGEST, (shutil.disk_usage(self.part.parent).free + self._length()) // 2)

    def _check_disk(self, have: int) -> None:
        if self.size is not None:
            check_disk(self.part.parent, self.size - have, self.part.stem)

    def _failed(self, reason: str) -> UserError:
        rest = f"; {amount(self._length())} are kept, run it again to resume" if self._length() else ""
        return UserError(f"{self.url}: {reason}{rest}; or fetch it elsewhere and put it at {self.path}")

    def _length(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0


def _hash(path: Path, like: str) -> str:
    """The checksum of a file, of the same kind as `like`."""
    kind = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
