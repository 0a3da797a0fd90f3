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
    assert rows.pictures()("OLIVES/TREX DME/ok.tif") == b"x"
    with pytest.raises(FileNotFoundError):
        rows.pictures()("evil.tif")
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
        rows.pictures()(rows.scans["path"].iloc[1])


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
