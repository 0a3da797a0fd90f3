"""Servers that send without end, too slowly, or something else: one line, bounded in time and bytes."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

import octdino.cohort.fetch
import octdino.cohort.olives.zenodo
import octdino.cohort.web
from octdino.cohort.fetch import fetch
from octdino.cohort.olives.zenodo import fetch_olives
from octdino.errors import UserError

from .server import Site, serve

CONTENT = np.random.default_rng(0).bytes(400_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
FILES = ("OLIVES_Dataset_Labels.zip", "OLIVES.zip")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(octdino.cohort.fetch, "WAIT", 0.0)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.zip").write_bytes(CONTENT)
    with serve(tmp_path / "site") as site:
        yield site


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data/a.zip"


def failure(url: str, path: Path, size: int | None = None, checksum: str = SHA) -> str:
    """The one line in which fetching ends; no file is under the final name."""
    with pytest.raises(UserError) as caught:
        fetch(url, path, checksum, size)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    return str(caught.value)


def part_of(path: Path) -> bytes:
    part = path.with_name(f"{path.name}.part")
    return part.read_bytes() if part.exists() else b""


def headers(handler: BaseHTTPRequestHandler, status: int = 200, **named: str) -> None:
    handler.send_response(status)
    for name, value in named.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def endless(handler: BaseHTTPRequestHandler) -> bool:
    headers(handler)
    while True:  # until the client ends the connection
        handler.wfile.write(bytes(65_536))


def drip(handler: BaseHTTPRequestHandler, every: float = 0.01) -> bool:
    headers(handler, Content_Length=str(len(CONTENT)))
    for _ in range(2000):
        handler.wfile.write(b"x")
        time.sleep(every)
    return True


def drip_headers(handler: BaseHTTPRequestHandler) -> bool:
    for _ in range(500):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.01)
    return True


def test_an_endless_answer_ends_at_the_known_size(site: Site, path: Path) -> None:
    site.misbehave = endless
    line = failure(f"{site.url}/a.zip", path, len(CONTENT))
    assert f"wrong checksum: expected {SHA}" in line
    assert len(site.requests) == 1
    assert part_of(path) == b""


def test_an_endless_answer_of_unknown_size_ends_at_a_limit(
    site: Site, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octdino.cohort.fetch, "LARGEST", 3_000_000)
    site.misbehave = endless
    assert "it sends without end and does not say how much; nothing is kept" in failure(f"{site.url}/a.zip", path)
    assert part_of(path) == b""


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_file_of_another_size_is_refused_before_it_is_sent(
    size: int | None, site: Site, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octdino.cohort.fetch, "LARGEST", 500_000)
    site.misbehave = lambda handler: headers(handler, Content_Length="999999") or True
    expected = "expected 400000" if size else "expected at most 500000"
    assert f"the server's file has 999999 bytes; {expected}" in failure(f"{site.url}/a.zip", path, size)
    assert len(site.requests) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_what_arrived_before_a_break_is_kept(ranges: bool, site: Site, path: Path) -> None:
    """Connections that break after 45,000 bytes: with ranges they add up, without they are not tried for ever."""
    site.cuts, site.ranges = 45_000, ranges
    if ranges:
        assert fetch(f"{site.url}/a.zip", path, SHA, len(CONTENT)).read_bytes() == CONTENT
        assert [asked.start for asked in site.requests] == [None, *range(45_000, 400_000, 45_000)]
        assert sum(asked.sent for asked in site.requests) == len(CONTENT)
    else:
        assert "the connection broke: " in failure(f"{site.url}/a.zip", path)
        assert len(site.requests) == 1 + octdino.cohort.fetch.TRIES - 1
        site.cuts, site.ranges = None, True
        assert fetch(f"{site.url}/a.zip", path, SHA).read_bytes() == CONTENT  # from where it broke
        assert site.requests[-1].start == 45_000


@pytest.mark.parametrize("how", [drip, drip_headers])
def test_a_server_that_drips_is_ended(
    how: Callable[[BaseHTTPRequestHandler], bool], site: Site, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octdino.cohort.web, "WINDOW", 0.1)
    monkeypatch.setattr(octdino.cohort.web, "HEADER_SECONDS", 0.1)
    monkeypatch.setattr(octdino.cohort.fetch, "TRIES", 3)
    site.misbehave = how
    begin = time.monotonic()
    line = failure(f"{site.url}/a.zip", path, len(CONTENT))
    assert time.monotonic() - begin < 5
    expected = "expected 1000 bytes per second or more" if how is drip else "no answer within 0.1 s"
    assert expected in line
    assert len(site.requests) == 3


@pytest.mark.parametrize("beginning", [b"", CONTENT[:1000]])
@pytest.mark.parametrize("status", [416, 206, 204, 304, 403])
def test_a_status_that_does_not_fit_is_not_asked_for_ever(
    status: int, beginning: bytes, site: Site, path: Path
) -> None:
    if beginning:
        path.parent.mkdir()
        path.with_name("a.zip.part").write_bytes(beginning)
    site.misbehave = lambda handler: headers(handler, status, Content_Range="bytes 7-8/9") or True
    assert f"{site.url}/a.zip: {status} " in failure(f"{site.url}/a.zip", path)
    assert len(site.requests) <= 2


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[1", "data:,x", "/a.zip/loop"])
def test_redirects_elsewhere_are_tried_once(target: str, site: Site, path: Path) -> None:
    site.misbehave = lambda handler: headers(handler, 302, Location=target, Content_Length="0") or True
    assert failure(f"{site.url}/a.zip", path).startswith(f"{site.url}/a.zip: ")
    assert len(site.requests) <= 1 + 30  # requests follows 30
    assert len(site.requests) == 1 or target == "/a.zip/loop"


@pytest.mark.parametrize("checksum", ["crc32:00000000", "md5:xyz", "", "sha256:00", f"{SHA}\n"])
def test_an_unknown_checksum_is_refused_before_it_is_sent(checksum: str, site: Site, path: Path) -> None:
    assert "expected md5:, sha256: or sha512: and its digits" in failure(f"{site.url}/a.zip", path, None, checksum)
    assert site.requests == []


def record(site: Site, **changes: object) -> dict[str, object]:
    entry = {"size": len(CONTENT), "checksum": SHA, "links": {"self": f"{site.url}/a.zip"}} | changes
    return {"files": [{"key": name, **entry} for name in FILES]}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"size": "400000"}, "size: Input should be a valid integer, got '400000'"),
        ({"size": -1}, "size: Input should be greater than 0, got -1"),
        ({"size": True}, "size: Input should be a valid integer, got True"),
        ({"size": 10**30}, "size: Input should be less than 1000000000000"),
        ({"checksum": "crc32:00000000"}, "checksum: String should match pattern"),
        ({"checksum": None}, "checksum: Input should be a valid string, got None"),
        ({"links": {"self": "file:///etc/passwd"}}, "links.self: String should match pattern '^https?://'"),
        ({"links": []}, "links: Input should be"),
    ],
)
def test_a_record_with_other_values_is_one_line(
    changes: dict[str, object], line: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octdino.cohort.olives.zenodo, "API", f"{site.url}")
    (site.folder / "7105232").write_text(json.dumps(record(site, **changes)))
    with pytest.raises(UserError) as caught:
        fetch_olives(tmp_path / "data")
    assert line in str(caught.value)
    assert "or put OLIVES_Dataset_Labels.zip and OLIVES.zip of" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def answer_nested(handler: BaseHTTPRequestHandler) -> bool:
    headers(handler)
    handler.wfile.write(b"[" * 100_000)
    return True


@pytest.mark.parametrize("how", [endless, answer_nested])
def test_an_endless_or_deep_record_is_one_line(
    how: Callable[[BaseHTTPRequestHandler], bool], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octdino.cohort.olives.zenodo, "API", f"{site.url}")
    site.misbehave = how
    with pytest.raises(UserError, match=r"more than 1,000,000 bytes|no record as expected") as caught:
        fetch_olives(tmp_path / "data")
    assert "\n" not in str(caught.value)
