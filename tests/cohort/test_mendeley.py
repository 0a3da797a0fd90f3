"""`octdino fetch oct2017` and `octdl` against a list of files on this machine, and the cohorts from their files."""

import hashlib
import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import octdino.cohort.fetch
import octdino.cohort.mendeley
from octdino import __version__, cli

from .oct_trees import junk, oct2017_files, octdl_images, octdl_rows, octdl_table, write_zip
from .server import Site, serve

Usage = namedtuple("Usage", "total used free")
LISTS = {"oct2017": "/api/rscbjbr9sj/files", "octdl": "/api/sncdhf53xc/files"}
FILES = {"oct2017": ["ZhangLabData.zip"], "octdl": ["OCTDL.zip", "OCTDL_labels.csv"]}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Both data sets with made-up scans, and the lists that name their files in the form of Mendeley's answers."""
    folder = tmp_path / "site"
    write_zip(folder / "oct2017" / "ZhangLabData.zip", oct2017_files() | junk())
    write_zip(folder / "octdl" / "OCTDL.zip", octdl_images(octdl_rows()))
    (folder / "octdl" / "OCTDL_labels.csv").write_bytes(octdl_table(octdl_rows()))
    monkeypatch.setattr(octdino.cohort.fetch, "WAIT", 0.0)
    with serve(folder) as site:
        for name, path in LISTS.items():
            write_list(site, path, [listed(site, name, file) for file in [*FILES[name], "other.txt"]])
        monkeypatch.setattr(octdino.cohort.mendeley, "API", f"{site.url}/api")
        yield site


def listed(site: Site, cohort: str, name: str) -> dict[str, Any]:
    """A file's object in the list, with what octdino does not read."""
    file = site.folder / cohort / name
    content = file.read_bytes() if file.is_file() else b"-"
    details = {
        "id": "22222222-2222-2222-2222-222222222222",
        "sha256_hash": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "content_type": "application/octet-stream",
        "download_url": f"{site.url}/{cohort}/{name}",
    }
    return {"filename": name, "id": "1", "size": len(content), "status": "COMPLETED", "content_details": details}


def write_list(site: Site, path: str, answer: Any) -> None:
    """The answer of the list of files."""
    file = site.folder / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(answer if isinstance(answer, str) else json.dumps(answer))


@pytest.mark.parametrize(("name", "scans"), [("oct2017", 40), ("octdl", 42)])
def test_fetched_resumed_and_read_as_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, scans: int
) -> None:
    root = tmp_path / "data"
    monkeypatch.setattr(octdino.cohort.fetch, "MEGABYTE", 1000)
    site.cut = 5000
    assert cli.main(["fetch", name, "--root", str(root)]) == 0
    assert sorted(file.name for file in root.iterdir()) == FILES[name]
    sent = [asked for asked in site.requests if asked.path == f"/{name}/{FILES[name][0]}"]
    assert [(asked.status, asked.start) for asked in sent] == [(200, None), (206, 5000)]
    again = len(site.requests)
    assert cli.main(["fetch", name, "--root", str(root)]) == 0
    assert [asked.path for asked in site.requests[again:]] == [LISTS[name]]  # nothing is sent twice
    out = tmp_path / "out"
    assert cli.main(["cohort", name, "--root", str(root), "--out", str(out), "--image.size", "32", "32"]) == 0
    assert len((out / "manifest.csv").read_text().splitlines()) == 1 + scans


def test_the_request_names_the_version_and_the_program(site: Site, tmp_path: Path) -> None:
    asked = []

    def watch(handler: Any) -> bool:
        asked.append((handler.path, handler.headers["User-Agent"]))
        return False

    site.misbehave = watch
    assert cli.main(["fetch", "octdl", "--root", str(tmp_path / "data")]) == 0
    assert asked[0] == ("/api/sncdhf53xc/files?folder_id=root&version=4", f"octdino/{__version__}")


def test_a_file_with_another_checksum_is_deleted(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = [listed(site, "oct2017", "ZhangLabData.zip")]
    file["content_details"]["sha256_hash"] = "A" * 64
    write_list(site, LISTS["oct2017"], [file])
    assert cli.main(["fetch", "oct2017", "--root", str(tmp_path / "data")]) == 2
    assert f"wrong checksum: expected sha256:{'a' * 64}, got sha256:" in capsys.readouterr().err
    assert list((tmp_path / "data").iterdir()) == []


def test_the_space_for_all_is_asked_for_first(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10_000))
    assert cli.main(["fetch", "octdl", "--root", str(tmp_path / "data")]) == 2
    assert "kB needed for OCTDL_labels.csv and OCTDL.zip, 10.0 kB free" in capsys.readouterr().err
    assert [asked.path for asked in site.requests] == [LISTS["octdl"]]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ('{"error": 400}', "no record as expected"),
        ("<html>", "no record as expected"),
        ("[]", "the record has no 'ZhangLabData.zip'"),
        ('[{"filename": "ZhangLabData.zip"}]', "the record has no 'content_details'"),
        (
            '[{"filename": "ZhangLabData.zip", "content_details": {"size": 3, "download_url": "http://x/y"}}]',
            "ContentDetails: sha256_hash: Field required",
        ),
    ],
)
def test_another_answer_than_expected(
    site: Site, tmp_path: Path, answer: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(site, LISTS["oct2017"], answer)
    assert cli.main(["fetch", "oct2017", "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"octdino fetch: error: {site.url}/api/rscbjbr9sj/files?folder_id=root&version=3: {cause}")
    assert error.endswith(f"or put ZhangLabData.zip of https://doi.org/10.17632/rscbjbr9sj.3 into {tmp_path / 'data'}")


def test_no_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(octdino.cohort.mendeley, "API", "http://127.0.0.1:9/api")
    assert cli.main(["fetch", "oct2017", "--root", str(tmp_path)]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "no connection: " in error
    assert "or put ZhangLabData.zip of https://doi.org/10.17632/rscbjbr9sj.3 into" in error
