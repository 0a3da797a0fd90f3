"""Downloads of torchvision's datasets: resumed, checked, and nothing left where one fails."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from torchvision.datasets.imagenette import Imagenette

from octdino.cli import main
from octdino.cohort import vision
from octdino.cohort.vision import Archive
from octdino.config import CohortSettings
from octdino.errors import UserError

from .server import serve
from .test_vision import build, write_imagenette


def pack(folder: Path, path: Path, extra: str | None = None) -> str:
    """A tar archive of a folder; its MD5 checksum."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
        if extra:
            info = tarfile.TarInfo(extra)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, str]:
    site = tmp_path / "site"
    site.mkdir()
    write_imagenette(tmp_path / "made")
    return site, pack(tmp_path / "made" / "imagenette2-160", site / "imagenette2-160.tgz")


def point(monkeypatch: pytest.MonkeyPatch, url: str, md5: str) -> None:
    monkeypatch.setitem(Imagenette._ARCHIVES, "160px", (f"{url}/imagenette2-160.tgz", md5))
    monkeypatch.setattr("octdino.cohort.fetch.WAIT", 0.01)


def test_missing_files_are_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: tuple[Path, str]
) -> None:
    """With the connection broken on the way: only the rest is sent again."""
    folder, md5 = archive
    whole = (folder / "imagenette2-160.tgz").stat().st_size
    with serve(folder, cut=whole // 2) as site:
        point(monkeypatch, site.url, md5)
        manifest, _ = build("imagenette", tmp_path / "data", tmp_path / "out")
        sent = [request.sent for request in site.requests]
        assert len(sent) == 2
        assert sum(sent) <= whole + 65536
        assert len(manifest) == 60
        build("imagenette", tmp_path / "data", tmp_path / "again")
        assert len(site.requests) == 2
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["imagenette2-160"]


def test_a_wrong_checksum_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: tuple[Path, str]
) -> None:
    folder, _ = archive
    with serve(folder) as site:
        point(monkeypatch, site.url, "0" * 32)
        with pytest.raises(UserError, match=r"expected .*0000"):
            build("imagenette", tmp_path / "data", tmp_path / "out")
    assert not list((tmp_path / "data").iterdir())


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site_folder = tmp_path / "site"
    site_folder.mkdir()
    write_imagenette(tmp_path / "made", train=1, val=1)
    md5 = pack(tmp_path / "made/imagenette2-160", site_folder / "imagenette2-160.tgz", extra="../../evil")
    with serve(site_folder) as site:
        point(monkeypatch, site.url, md5)
        with pytest.raises(UserError, match="cannot be unpacked"):
            build("imagenette", tmp_path / "data", tmp_path / "out")
    assert not list(tmp_path.rglob("evil"))
    assert not list((tmp_path / "data").glob("*2-160"))


def test_neither_files_nor_network_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("octdino.cohort.fetch.TRIES", 1)
    point(monkeypatch, "http://127.0.0.1:9", "0" * 32)  # nobody listens on the port of discarded bytes
    code = main(["cohort", "imagenette", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert code == 2
    assert f"no folder imagenette2-160 in {tmp_path / 'data'}" in line
    assert "http://127.0.0.1:9/imagenette2-160.tgz" in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["imagenette", "cifar10", "stl10", "voc12"])
def test_addresses_are_torchvisions(name: str) -> None:
    found = vision.archive_of(CohortSettings(name=name))
    assert isinstance(found, Archive)
    assert found.url.startswith("http")
    assert len(found.md5) == 32
    assert CohortSettings(name=name).files.name == name
