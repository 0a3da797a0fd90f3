"""Downloads against a server of this machine that breaks, ignores and lies."""

import hashlib
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import octdino.cohort.fetch
from octdino.cohort.fetch import fetch
from octdino.errors import UserError

from .server import Site, serve

CONTENT = np.random.default_rng(0).bytes(3_300_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(octdino.cohort.fetch, "WAIT", 0.0)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "big.zip").write_bytes(CONTENT)
    with serve(folder) as site:
        yield site


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "here" / "big.zip"


def left(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


@pytest.mark.parametrize("checksum", [SHA, MD5])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_file_is_downloaded_once_and_complete(site: Site, path: Path, checksum: str, size: int | None) -> None:
    assert fetch(f"{site.url}/big.zip", path, checksum, size) == path
    assert path.read_bytes() == CONTENT
    assert left(path) == ["big.zip"]
    assert [(asked.start, asked.sent) for asked in site.requests] == [(None, len(CONTENT))]


def test_a_broken_connection_is_resumed_where_it_broke(site: Site, path: Path) -> None:
    site.cut = 2_000_000
    fetch(f"{site.url}/big.zip", path, SHA)
    assert path.read_bytes() == CONTENT
    first, second = site.requests
    assert (first.start, first.sent) == (None, 2_000_000)
    assert second.status == 206
    assert second.start is not None
    assert second.start >= 1_000_000  # whole megabytes are kept
    assert second.start + second.sent == len(CONTENT)


def test_a_killed_download_is_resumed_by_the_next_command(site: Site, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.with_name("big.zip.part").write_bytes(CONTENT[:1_234_567])
    fetch(f"{site.url}/big.zip", path, SHA)
    assert path.read_bytes() == CONTENT
    assert [(asked.start, asked.sent) for asked in site.requests] == [(1_234_567, len(CONTENT) - 1_234_567)]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_complete_part_is_not_sent_again(site: Site, path: Path, size: int | None) -> None:
    path.parent.mkdir(parents=True)
    path.with_name("big.zip.part").write_bytes(CONTENT)
    fetch(f"{site.url}/big.zip", path, SHA, size)
    assert path.read_bytes() == CONTENT
    assert sum(asked.sent for asked in site.requests) == 0


def test_a_server_without_ranges_starts_again(site: Site, path: Path) -> None:
    site.cut, site.ranges = 2_000_000, False
    fetch(f"{site.url}/big.zip", path, SHA)
    assert path.read_bytes() == CONTENT
    assert [asked.status for asked in site.requests] == [200, 200]


def test_a_file_that_changed_while_broken_starts_again(site: Site, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.with_name("big.zip.part").write_bytes(b"of an older edition" * 1000)
    fetch(f"{site.url}/big.zip", path, SHA)
    assert path.read_bytes() == CONTENT
    assert [asked.start for asked in site.requests] == [19_000, None]


def test_a_part_that_is_too_long_starts_again(site: Site, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.with_name("big.zip.part").write_bytes(CONTENT + b"more")
    fetch(f"{site.url}/big.zip", path, SHA)
    assert path.read_bytes() == CONTENT
    assert [asked.status for asked in site.requests] == [416, 200]


def test_a_busy_server_is_asked_again(site: Site, path: Path) -> None:
    site.busy = 2
    fetch(f"{site.url}/big.zip", path, SHA)
    assert [asked.status for asked in site.requests] == [503, 503, 200]


def test_a_wrong_checksum_leaves_nothing(site: Site, path: Path) -> None:
    wrong = f"md5:{'0' * 32}"
    with pytest.raises(UserError) as caught:
        fetch(f"{site.url}/big.zip", path, wrong)
    assert str(caught.value).startswith(f"{site.url}/big.zip: wrong checksum: expected {wrong}, got {MD5}")
    assert left(path) == []


def test_a_missing_file_is_one_line_and_not_retried(site: Site, path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch(f"{site.url}/none.zip", path, SHA)
    assert str(caught.value) == f"{site.url}/none.zip: 404 Not Found; or fetch it elsewhere and put it at {path}"
    assert len(site.requests) == 1


def test_no_server_is_one_line(path: Path, site: Site) -> None:
    with serve(path.parents[2]) as other:
        url = other.url
    with pytest.raises(UserError, match=r"no connection: .*refused.*put it at .*big.zip") as caught:
        fetch(f"{url}/big.zip", path, SHA)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{url}/big.zip: ")


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_too_little_disk(site: Site, path: Path, size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1_500_000))
    with pytest.raises(UserError, match=r"here: 3.3 MB needed for big.zip, 1.5 MB free"):
        fetch(f"{site.url}/big.zip", path, SHA, size)
    assert not path.exists()
    path.with_name("big.zip.part").write_bytes(CONTENT[:2_000_000])  # then the rest fits
    fetch(f"{site.url}/big.zip", path, SHA, size)
    assert path.read_bytes() == CONTENT


def test_an_existing_file_is_not_downloaded_again(site: Site, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    fetch("http://127.0.0.1:1/big.zip", path, SHA)
    path.write_bytes(b"put by hand, and wrong")
    fetch(f"{site.url}/big.zip", path, SHA)
    assert path.read_bytes() == CONTENT
