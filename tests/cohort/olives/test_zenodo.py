"""`octdino fetch olives` against a record of this machine, and the cohort from what it fetched."""

import hashlib
import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

import octdino.cohort.fetch
import octdino.cohort.olives.zenodo
from octdino import cli

from ..server import Site, serve
from .test_archives import write

Usage = namedtuple("Usage", "total used free")
FILES = ("OLIVES_Dataset_Labels.zip", "OLIVES.zip")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The archives with small made-up scans, and the record that names them in the form of Zenodo's answers."""
    folder = tmp_path / "site"
    write(folder / "files")
    tables = [path for path in (folder / "files").iterdir() if path.suffix != ".zip"]
    (tmp_path / "labels/OLIVES_Dataset_Labels").mkdir(parents=True)
    for table in tables:
        table.rename(tmp_path / "labels/OLIVES_Dataset_Labels" / table.name)
    shutil.make_archive(str(folder / "files/OLIVES_Dataset_Labels"), "zip", tmp_path / "labels")
    monkeypatch.setattr(octdino.cohort.fetch, "WAIT", 0.0)
    with serve(folder) as site:
        files = [
            {
                "key": name,
                "size": (folder / "files" / name).stat().st_size,
                "checksum": f"md5:{hashlib.md5((folder / 'files' / name).read_bytes()).hexdigest()}",
                "links": {"self": f"{site.url}/files/{name}"},
            }
            for name in FILES
        ]
        (folder / "api").mkdir()
        (folder / "api/7105232").write_text(json.dumps({"id": 7105232, "files": files}))
        monkeypatch.setattr(octdino.cohort.olives.zenodo, "API", f"{site.url}/api")
        yield site


def test_fetched_and_read_as_it_is(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cut = tmp_path / "data/OLIVES", 20_000
    monkeypatch.setattr(octdino.cohort.fetch, "MEGABYTE", 1000)
    site.cut = cut
    assert cli.main(["fetch", "olives", "--root", str(root)]) == 0
    assert sorted(file.name for file in root.iterdir()) == sorted(FILES)
    sent = [asked for asked in site.requests if asked.path == "/files/OLIVES.zip"]
    assert [asked.status for asked in sent] == [200, 206]
    assert sent[0].sent == cut
    again = len(site.requests)
    assert cli.main(["fetch", "olives", "--root", str(root)]) == 0
    assert [asked.path for asked in site.requests[again:]] == ["/api/7105232"]  # nothing is sent twice
    out = tmp_path / "out"
    assert cli.main(["cohort", "olives", "--root", str(root), "--out", str(out), "--image.size", "32", "32"]) == 0
    assert len((out / "manifest.csv").read_text().splitlines()) == 1 + 72


def test_the_space_for_all_is_asked_for_first(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10_000))
    assert cli.main(["fetch", "olives", "--root", str(tmp_path / "data")]) == 2
    assert "kB needed for OLIVES_Dataset_Labels.zip and OLIVES.zip, 10.0 kB free" in capsys.readouterr().err
    assert [asked.path for asked in site.requests] == ["/api/7105232"]


@pytest.mark.parametrize("answer", ["{}", "no JSON", '{"files": [{"key": "OLIVES.zip"}]}', '{"files": 3}'])
def test_another_answer_than_expected(
    site: Site, tmp_path: Path, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "api/7105232").write_text(answer)
    assert cli.main(["fetch", "olives", "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"octdino fetch: error: {site.url}/api/7105232: ")
    assert error.endswith(f"or put OLIVES_Dataset_Labels.zip and OLIVES.zip of "
                          f"https://doi.org/10.5281/zenodo.7105232 into {tmp_path / 'data'}")  # fmt: skip


def test_no_record(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "api/7105232").unlink()
    assert cli.main(["fetch", "olives", "--root", str(tmp_path / "data")]) == 2
    assert "404" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["phantom", "folder"])
def test_nothing_to_fetch(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", name, "--root", str(tmp_path)]) == 2
    assert f"{name}: nothing to fetch; expected olives, " in capsys.readouterr().err
