"""Archives that are damaged, hostile or too large; small ones of made-up scans."""

import io
import logging
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octdino.cohort.ingest import build_cohort
from octdino.cohort.olives import read_olives
from octdino.errors import UserError

from ..trees import OlivesTree, olives_tree, settings

Usage = namedtuple("Usage", "total used free")


def inner_zip(tree: OlivesTree, half: str, extra: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path, picture in tree.pictures.items():
            if path.startswith(f"/{half}/") and isinstance(picture, np.ndarray):
                content = io.BytesIO()
                Image.fromarray(picture).save(content, "TIFF")
                packed.writestr(path[1:], content.getvalue())
        for name, content_ in (extra or {}).items():
            packed.writestr(name, content_)
    return buffer.getvalue()


def write(root: Path, method: int = zipfile.ZIP_STORED, extra: dict[str, bytes] | None = None) -> Path:
    """The tables on disk, the pictures in OLIVES.zip."""
    tree = olives_tree()
    pictures, tree.pictures = tree.pictures, {}
    tree.write(root)
    tree.pictures = pictures
    with zipfile.ZipFile(root / "OLIVES.zip", "w") as outer:
        outer.writestr("OLIVES/TREX_DME.zip", inner_zip(tree, "TREX DME", extra), method)
        outer.writestr("OLIVES/Prime_FULL.zip", inner_zip(tree, "Prime_FULL"), method)
    return root


def test_a_damaged_member_is_unreadable_and_the_others_are_not(tmp_path: Path) -> None:
    root = write(tmp_path / "root")
    content = bytearray((root / "OLIVES.zip").read_bytes())
    name = b"TREX DME/GILA/0201GOD/V1/OD/TREXJ_000001.tif"
    at = content.index(name) + len(name) + 200  # among its pixels
    content[at : at + 50] = bytes(50)
    (root / "OLIVES.zip").write_bytes(content)
    build_cohort(settings(root), tmp_path / "out")
    table = (tmp_path / "out/quarantine.csv").read_text()
    assert table.splitlines()[1].startswith("/TREX DME/GILA/0201GOD/V1/OD/TREXJ_000001.tif,3,unreadable,Bad CRC-32")
    assert len(table.splitlines()) == 2
    assert len((tmp_path / "out/manifest.csv").read_text().splitlines()) == 1 + 71


def test_members_that_would_leave_the_root_are_no_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path / "root", extra={"../../evil.tif": b"x", "C:/evil.tif": b"x", "/TREX DME/ok.tif": b"x"})
    with caplog.at_level(logging.WARNING):
        rows = read_olives(settings(root))
    assert len(rows.scans) == 72
    assert sum("evil.tif leaves the root" in record.message for record in caplog.records) == 2
    assert rows.image_source()("OLIVES/TREX DME/ok.tif") == b"x"
    with pytest.raises(FileNotFoundError):
        rows.image_source()("evil.tif")
    assert not list(tmp_path.rglob("evil*"))


def test_a_member_packed_as_no_python_can_is_unreadable(tmp_path: Path) -> None:
    root = write(tmp_path / "root")
    content = (root / "OLIVES.zip").read_bytes()
    name = b"TREX DME/GILA/0201GOD/V1/OD/TREXJ_000001.tif"
    entry = content.index(b"PK\x01\x02", content.rindex(name) - 60)  # its line in the list of members
    changed = bytearray(content)
    changed[entry + 10] = 99
    (root / "OLIVES.zip").write_bytes(changed)
    rows = read_olives(settings(root))
    with pytest.raises(OSError, match=r"OLIVES.zip: .*compression"):
        rows.image_source()(rows.scans["path"].iloc[1])


@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_half_an_archive_is_one_line(tmp_path: Path, keep: float) -> None:
    root = write(tmp_path)
    content = (root / "OLIVES.zip").read_bytes()
    (root / "OLIVES.zip").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=r"OLIVES.zip: no whole zip: .*fetch it again"):
        read_olives(settings(root))


def test_a_compressed_half_needs_its_space_and_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, zipfile.ZIP_DEFLATED)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
        with pytest.raises(UserError, match=r"OLIVES: .* kB needed for TREX_DME.zip, 1.0 kB free"):
            read_olives(settings(root))
    assert not list(root.rglob("*.part"))
    assert len(read_olives(settings(root)).scans) == 72
    halves = [root / "OLIVES/TREX_DME.zip", root / "OLIVES/Prime_FULL.zip"]
    written = [file.stat().st_mtime_ns for file in halves]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    assert len(read_olives(settings(root)).scans) == 72
    assert [file.stat().st_mtime_ns for file in halves] == written


def test_a_compressed_half_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    root = write(tmp_path, zipfile.ZIP_DEFLATED)
    content = bytearray((root / "OLIVES.zip").read_bytes())
    content[3000:3100] = bytes(100)
    (root / "OLIVES.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"OLIVES.zip: OLIVES/TREX_DME.zip cannot be unpacked: .*fetch it again"):
        read_olives(settings(root))
    assert not (root / "OLIVES/TREX_DME.zip").exists()
    assert not list(root.rglob("*.part"))


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(("method", "depth"), [(zipfile.ZIP_STORED, 1500), (zipfile.ZIP_DEFLATED, 8)])
def test_zips_nested_too_deep_are_one_line(method: int, depth: int, tmp_path: Path) -> None:
    content = zipped({"a.txt": b"nothing"})
    for _ in range(depth):
        content = zipped({"a.zip": content}, method)
    (tmp_path / "outer.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"zips nested more than 4 deep; unpack it, or remove it") as caught:
        read_olives(settings(tmp_path))
    assert "\n" not in str(caught.value)
    written = [file for file in tmp_path.rglob("*") if file.name != "outer.zip"]
    assert sum(file.stat().st_size for file in written) <= 4 * len(content)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_unpacks_to_far_more_is_not_written(method: int, tmp_path: Path) -> None:
    (tmp_path / "outer.zip").write_bytes(zipped({"bomb.zip": bytes(3_000_000)}, method))
    with pytest.raises(UserError, match=r"bomb.zip holds 3.0 MB packed into .*; expected a zip that was stored or"):
        read_olives(settings(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["outer.zip"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_other_methods_are_unreadable(method: int, tmp_path: Path) -> None:
    """Python unpacks these in one piece, whatever the size that the archive names."""
    root = write(tmp_path / "root")
    (root / "more.zip").write_bytes(zipped({"a.tif": bytes(100)}, method))
    with pytest.raises(OSError, match=rf"more.zip: a.tif: compression {method}; expected deflate or none"):
        read_olives(settings(root)).image_source()("a.tif")


def test_more_files_than_any_cohort_has_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "root")
    monkeypatch.setattr("octdino.cohort.archives.MAX_MEMBERS", 30)  # each half has 36 scans
    with pytest.raises(UserError, match=r"OLIVES.zip: more than 60 zips, or 30 files in one"):
        read_olives(settings(root))


def test_a_link_in_an_archive_is_bytes(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("TREX DME/link.tif")
    link.external_attr = 0o120777 << 16  # a symbolic link, as Info-ZIP writes it
    root = write(tmp_path / "root")
    with zipfile.ZipFile(root / "more.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    assert read_olives(settings(root)).image_source()("TREX DME/link.tif") == b"/etc/passwd"


def test_a_table_in_an_archive_that_is_too_large_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "root")
    table = root / "Biomarker_Clinical_Data_Images.csv"
    (root / "labels.zip").write_bytes(zipped({table.name: table.read_bytes()}))
    table.unlink()
    monkeypatch.setattr("octdino.cohort.archives.MAX_BYTES", 100)
    with pytest.raises(UserError, match=r"Images.csv: cannot be read from its archive: .*expected at most 100"):
        read_olives(settings(root))
