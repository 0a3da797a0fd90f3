"""Archives and parquet shards whose directories lie end in one line or in the quarantine; memory stays bounded."""

import io
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino import cli
from octdino.cohort.archives import Archive, open_archives
from octdino.cohort.file_index import FileIndex
from octdino.config import ImageSettings
from octdino.errors import EXIT_USER, UserError
from octdino.scans.preprocess import decode_scan

from ..trees import olives_tree

PLAIN = ImageSettings(size=(20, 30))
NAME = "TREX DME/GILA/0201GOD/V1/OD/TREXJ_000001.tif"
OTHER = "TREX DME/GILA/0201GOD/V1/OD/TREXJ_000002.tif"
Entries = dict[str, zipfile.ZipInfo]
Damage = Callable[[zipfile.ZipInfo, Entries], None]


def tiff(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF")
    return out.getvalue()


def packed(
    members: dict[str, bytes], damage: Damage | None = None, name: str = "", method: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip; `damage` changes the entry `name` of its central directory, not the local header."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        if damage:
            damage(archive.NameToInfo[name], archive.NameToInfo)
    return buffer.getvalue()


def setting(**fields: int) -> Damage:
    def damage(entry: zipfile.ZipInfo, _: Entries) -> None:
        for field, value in fields.items():
            setattr(entry, field, value)

    return damage


def at_other(entry: zipfile.ZipInfo, entries: Entries) -> None:
    entry.header_offset = entries[OTHER].header_offset


def same_flags(bits: int) -> Damage:
    def damage(entry: zipfile.ZipInfo, _: Entries) -> None:
        entry.flag_bits |= bits

    return damage


MEMBERS: dict[str, tuple[Damage, str]] = {
    "offset beyond the file": (setting(header_offset=0x7FFFFFFF), "Truncated file header"),
    "zip64 offset beyond any file": (setting(header_offset=2**62), "."),
    "zip64 offset of 63 bits": (setting(header_offset=2**63 - 1), "."),
    "zip64 offset of 64 bits": (setting(header_offset=2**64 - 2), "."),
    "offset amid another member": (setting(header_offset=5000), "Bad magic number for file header"),
    "offset of another member": (at_other, "File name in directory .* differ"),
    "encrypted": (same_flags(1), "encrypted; expected a file without a password"),
    "strong encryption alone": (same_flags(0x40), "strong encryption"),
    "strong encryption": (same_flags(0x41), "encrypted; expected"),
    "patched": (same_flags(0x20), "compressed patched data"),
    "bzip2": (setting(compress_type=12), "compression 12; expected deflate or none"),
    "deflate64": (setting(compress_type=9), "compression 9; expected deflate or none"),
    "AES": (setting(compress_type=99), "compression 99; expected deflate or none"),
    "deflate that is none": (setting(compress_type=8), "Error -3 while decompressing"),
    "a terabyte": (setting(file_size=2**40, compress_size=2**40), "bytes; expected at most"),
    "64 bits of size": (setting(file_size=2**64 - 2, compress_size=2**64 - 2), "bytes; expected at most"),
    "larger than it is": (setting(file_size=2**26, compress_size=2**26), "."),
    "smaller than it is": (setting(file_size=10), "Bad CRC-32"),
    "nothing of it": (setting(file_size=0), "Bad CRC-32"),
}


def write(root: Path, archive: Callable[[dict[str, bytes]], bytes]) -> Path:
    """The tables on disk, all images in one zip."""
    tree = olives_tree()
    images = {path[1:]: tiff(image) for path, image in tree.pictures.items() if isinstance(image, np.ndarray)}
    tree.pictures = {}
    tree.write(root)
    (root / "scans.zip").write_bytes(archive(images))
    return root


def ingest(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code of `octdino cohort olives` and the line of its error."""
    code = cli.main(["cohort", "olives", "--root", str(root), "--out", str(out), "--image.size", "32", "32"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("octdino")]
    assert len(lines) == (code != 0)
    return code, "".join(lines)


def quarantined(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "quarantine.csv", dtype=str)


@pytest.mark.parametrize("case", MEMBERS)
def test_a_member_whose_entry_lies_is_quarantined_with_a_reason(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, detail = MEMBERS[case]
    root = write(tmp_path / "root", lambda images: packed(images, damage, NAME))
    assert ingest(root, tmp_path / "out", capsys) == (0, "")
    table = quarantined(tmp_path / "out")
    assert table[["path", "reason"]].to_numpy().tolist() == [[f"/{NAME}", "unreadable"]]
    assert table["detail"].str.contains(detail).all()
    assert len(pd.read_csv(tmp_path / "out/manifest.csv")) == 71


@pytest.mark.parametrize("utf8", [False, True])
def test_a_local_name_that_differs_or_is_not_utf8_is_quarantined(
    utf8: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def archive(images: dict[str, bytes]) -> bytes:
        data = bytearray(packed(images))
        at = data.index(NAME.encode())  # the first is in the local header
        data[at : at + 2] = b"\xff\xfe"
        if utf8:
            data[at - 30 + 7] |= 0x08
        return bytes(data)

    assert ingest(write(tmp_path / "root", archive), tmp_path / "out", capsys) == (0, "")
    (detail,) = quarantined(tmp_path / "out")["detail"]
    assert ("can't decode byte 0xff" if utf8 else "differ") in detail


def test_members_that_overlap_are_read_or_quarantined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Later releases of Python refuse overlapping members."""

    def archive(images: dict[str, bytes]) -> bytes:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as hidden:
            hidden.writestr(OTHER, images[OTHER])
        around = images[NAME] + inner.getvalue()  # a TIFF reader ignores what follows the image

        def overlap(entry: zipfile.ZipInfo, entries: Entries) -> None:
            entry.header_offset = entries[NAME].header_offset + 30 + len(NAME) + len(images[NAME])

        return packed({**images, NAME: around}, overlap, OTHER)

    assert ingest(write(tmp_path / "root", archive), tmp_path / "out", capsys) == (0, "")
    table = quarantined(tmp_path / "out")
    assert set(table["reason"]) <= {"unreadable"}
    assert len(pd.read_csv(tmp_path / "out/manifest.csv")) + len(table) == 72


def test_a_directory_that_says_another_place_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def archive(images: dict[str, bytes]) -> bytes:
        data = bytearray(packed(images))
        (offset,) = struct.unpack("<I", data[-6:-2])
        data[-6:-2] = struct.pack("<I", offset + 10_000_000)  # all members begin before the file
        return bytes(data)

    code, line = ingest(write(tmp_path / "root", archive), tmp_path / "out", capsys)
    assert code == EXIT_USER
    assert "72 unreadable" in line


INNER: dict[str, tuple[Damage, int, str]] = {
    "offset beyond the file": (setting(header_offset=0x7FFFFFFF), 0, "does not begin where the zip says"),
    "zip64 offset beyond any file": (setting(header_offset=2**62), 0, "does not begin where the zip says"),
    "zip64 offset of 64 bits": (setting(header_offset=2**64 - 2), 0, "does not begin where the zip says"),
    "offset of another member": (at_other, 0, "does not begin where|ends behind the zip|no whole zip"),
    "a terabyte": (setting(file_size=2**40), 0, "ends behind the zip that holds it"),
    "63 bits of size": (setting(file_size=2**63 - 1), 0, "ends behind the zip that holds it"),
    "64 bits of size": (setting(file_size=2**64 - 2), 0, "ends behind the zip that holds it"),
    "no bytes": (setting(file_size=0), 0, "no whole zip"),
    "encrypted": (same_flags(1), 0, "cannot be unpacked: .*encrypted"),
    "AES": (setting(compress_type=99), 0, "by method 99; expected a zip that was stored or deflated"),
    "deflated, 64 bits of offset": (setting(header_offset=2**64 - 2), 8, "cannot be unpacked"),
    "deflated, much larger": (setting(file_size=2**40), 8, "expected a zip that was stored or deflated"),
    "deflated, far more than the disk": (setting(file_size=2**60, compress_size=2**60), 8, "needed for a.zip"),
    "deflated, less than it is": (setting(file_size=20), 8, "cannot be unpacked: Bad CRC-32"),
    "deflated, strong encryption": (same_flags(0x41), 8, "cannot be unpacked: strong encryption"),
}


@pytest.mark.parametrize("case", INNER)
def test_an_inner_zip_whose_entry_lies_is_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, method, message = INNER[case]
    inner = packed({NAME: random.Random(0).randbytes(2000)})  # a ratio of one: deflated, too, it is no bomb
    root = write(tmp_path / "root", lambda images: packed({"a.zip": inner, OTHER: b"y"}, damage, "a.zip", method))
    code, line = ingest(root, tmp_path / "out", capsys)
    assert code == EXIT_USER
    assert pd.Series([line]).str.contains(message).all(), line
    assert not list(root.rglob("*.part"))
    assert not (root / "a.zip").exists()


def test_a_zip_that_holds_itself_is_one_line(tmp_path: Path) -> None:
    data = bytearray(packed({"a.zip": b""}))
    entry = data.index(b"PK\x01\x02")
    rest = len(data) - 30 - len("a.zip")
    data[entry + 20 : entry + 28] = struct.pack("<II", rest, rest)  # from behind its own local header to the end
    (tmp_path / "a").mkdir()
    (tmp_path / "a/outer.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"nested more than 4 deep|does not begin where the zip says"):
        open_archives(FileIndex(tmp_path / "a"))


def read_all(root: Path) -> None:
    """Open what lies below root and read each file of it: only UserError may be raised, when they are opened."""
    tree = FileIndex(root)
    try:
        open_archives(tree)
    except UserError:
        return
    for name in sorted(tree.files):
        decode_scan(name, PLAIN, tree.source)


def small_nested() -> bytes:
    image = tiff(np.arange(6, dtype=np.uint8).reshape(2, 3))
    return packed({"a.zip": packed({"b.tif": image}), "c.tif": image}, setting(header_offset=0), "a.zip")


def test_a_zip_cut_anywhere_is_one_line(tmp_path: Path) -> None:
    plain, zip64 = packed({"a.tif": b"x"}), packed({"a.tif": b"x"}, setting(header_offset=2**33), "a.tif")
    for data in (plain, zip64):
        for end in range(len(data)):
            path = tmp_path / f"{len(data)}-{end}.zip"
            path.write_bytes(data[:end])
            with pytest.raises(UserError, match="no whole zip"):
                _ = Archive.of(tmp_path, path.name).members


@pytest.mark.parametrize("value", [0x00, 0x7F, 0xFF])
def test_any_changed_byte_of_a_zip_is_one_line_or_unreadable(value: int, tmp_path: Path) -> None:
    data = small_nested()
    for at in range(len(data)):
        root = tmp_path / str(at)
        root.mkdir()
        (root / "outer.zip").write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
        read_all(root)


BOMB = """
import resource, sys
from pathlib import Path
from octdino.scans.preprocess import decode_scan
from octdino.cohort.archives import open_archives
from octdino.cohort.file_index import FileIndex
from octdino.config import ImageSettings
tree = FileIndex(Path(sys.argv[1]))
open_archives(tree)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = decode_scan("a.tif", ImageSettings(size=(20, 30)), tree.source)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, picture.reason)
"""


def test_a_member_that_unpacks_to_more_than_it_says_takes_no_memory(tmp_path: Path) -> None:
    content = {"a.tif": bytes(300_000_000)}
    (tmp_path / "bomb.zip").write_bytes(packed(content, setting(file_size=100), "a.tif", zipfile.ZIP_DEFLATED))
    done = subprocess.run([sys.executable, "-c", BOMB, str(tmp_path)], check=True, capture_output=True, text=True)
    taken, reason = done.stdout.split()
    assert reason == "unreadable"
    assert int(taken) < 50_000  # KiB
