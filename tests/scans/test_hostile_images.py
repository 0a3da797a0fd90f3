"""Image files that would start programs, hang, or take all memory are refused with a reason; the rest is read."""

import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

import octdino.cohort.archives
import octdino.cohort.olives.parquet
from octdino.cohort.ingest import build_cohort
from octdino.cohort.olives import read_olives
from octdino.cohort.olives.parquet import ShardSource
from octdino.cohort.vision import read_vision
from octdino.config import ImageSettings
from octdino.errors import UserError
from octdino.explain.lesion_masks import read_truth
from octdino.scans.image_files import MAX_PIXELS, ImageError, read_image
from octdino.scans.preprocess import decode_scan, to_uint8
from tests.cohort.olives.test_archives import write
from tests.cohort.test_vision import write_voc
from tests.cohort.trees import picture, settings

PLAIN = ImageSettings(size=(20, 30))
GREY = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n{} loop\nshowpage\n"


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8 bits whose header says this size; its pixels are a few zeros."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = (b"IDAT", zlib.compress(bytes(min((width + 1) * height, 10_000))))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
             for k, d in (header, *chunks, pixels, (b"IEND", b""))]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(data: bytes, **changes: int) -> bytes:
    """A deflated TIFF of 64 x 64 px with one tile or strip `data`; `changes` by TIFF's numbers of tags: t322=…"""
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1} | {int(k[1:]): v for k, v in changes.items()}
    place, count = (324, 325) if 322 in tags else (273, 279)
    tags |= {place: 8 + 2 + 12 * (len(tags) + 2) + 4, count: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def encoded(kind: str, *frames: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    more = {"save_all": True, "append_images": images[1:]} if images[1:] else {}
    images[0].save(out, kind, **more, **options)
    return out.getvalue()


def huge_jpeg() -> bytes:
    content = bytearray(encoded("JPEG", GREY))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content)


def jpeg_of_many_scans() -> bytes:
    """A progressive JPEG whose last pass over the image comes again and again."""
    content = encoded("JPEG", GREY, progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + 200 * last + content[-2:]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "eps": (lambda: EPS, "expected PNG, JPEG, TIFF or BMP"),
    "gif": (lambda: encoded("GIF", GREY), "expected PNG, JPEG, TIFF or BMP"),
    "webp": (lambda: encoded("WEBP", GREY), "expected PNG, JPEG, TIFF or BMP"),
    "pdf": (lambda: b"%PDF-1.4\n", "expected PNG, JPEG, TIFF or BMP"),
    "pixels": (lambda: png(13_000, 13_000), "13000 x 13000 pixels; expected at most 33,554,432"),
    "just too many pixels": (lambda: png(8193, 4096), "8193 x 4096 pixels; expected at most 33,554,432"),
    "long and thin": (lambda: png(2**31 - 1, 1), "more than 33,554,432 pixels"),
    "jpeg": (huge_jpeg, "more than 33,554,432 pixels"),
    "bmp": (lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6),
            "more than 33,554,432 pixels"),
    "tiff": (lambda: tiff(bytes(9), t256=60_000, t257=60_000), "more than 33,554,432 pixels"),
    "float tiff": (lambda: tiff(bytes(9), t256=9000, t257=9000, t258=32, t339=3), "9000 x 9000 pixels"),
    "tile": (lambda: tiff(zlib.compress(bytes(9)), t322=30_000, t323=30_000), "tiles of 900,000,000 pixels"),
    "strip": (lambda: tiff(zlib.compress(bytes(10**6)), t278=2**31), ""),
    "text": (lambda: png(50, 50, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**8), 1))), "too large"),
    "texts": (lambda: png(50, 50, *[(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**6)))] * 80), "Too much memory"),
    "profile": (lambda: png(50, 50, (b"iCCP", b"Comment\0\0" + zlib.compress(bytes(10**8), 1))), "too large"),
    "animated png": (lambda: encoded("PNG", GREY, GREY[::-1]), "more than one image"),
    "mpo": (lambda: encoded("MPO", np.stack([GREY] * 3, 2), np.stack([GREY[::-1]] * 3, 2)), "more than one image"),
    "tiff of two": (lambda: encoded("TIFF", GREY, GREY[::-1]), "more than one image"),
    "passes": (jpeg_of_many_scans, "a JPEG of 2"),
    "cut": (lambda: encoded("PNG", GREY)[:300], ""),
    "nothing": (lambda: b"", "the file is empty"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_with_a_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: started.append(args))
    content, expected = HOSTILE[kind][0](), HOSTILE[kind][1]
    (tmp_path / "x.png").write_bytes(content)
    for source in (Path, lambda _: content):  # a file, and a member of an archive
        got = decode_scan(tmp_path / "x.png", PLAIN, source)
        assert (got.image, got.reason) == (None, "unreadable")
        assert expected in got.detail
        assert "\n" not in got.detail
    assert not started
    assert capfd.readouterr() == ("", "")  # nothing beside the quarantine's line


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is at most 107 characters long
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a FIFO": make_fifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    SPECIAL[kind](tmp_path / "x.png")
    got = decode_scan(tmp_path / "x.png", PLAIN)
    assert (got.reason, got.detail) == ("unreadable", f"{kind}; expected a regular file")


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.write(png(50, 50)[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt")
        file.truncate(3 * 2**30)
    assert "3,221,225,472 bytes; expected at most 134,217,728" in decode_scan(tmp_path / "x.png", PLAIN).detail


def test_links_largest_images_and_late_pixels_stay_legal(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    assert decode_scan(tmp_path / "link.png", PLAIN).size == (60, 40)
    image = read_image(encoded("PNG", np.zeros((4096, 8192), np.uint8)))  # as many pixels as are allowed
    assert image.size == (8192, 4096)
    assert image.size[0] * image.size[1] == MAX_PIXELS
    assert read_image(encoded("JPEG", GREY, progressive=True)).size == (60, 40)
    assert read_image(tiff(zlib.compress(bytes(64 * 64)), t322=64, t323=64)).size == (64, 64)


def test_bad_files_end_in_the_quarantine_and_the_cohort_is_built(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    rows = [{"path": f"{i}.png", "patient": f"p{i // 2}", "A": i // 2 % 2} for i in range(24)]
    for number, row in enumerate(rows):
        Image.fromarray(picture(number)).save(root / str(row["path"]))
    bad = {"eps.png": EPS, "big.png": png(13_000, 13_000), "gif.png": encoded("GIF", GREY)}
    for name, content in bad.items():
        (root / name).write_bytes(content)
    os.mkfifo(root / "fifo.png")
    (root / "zero.png").symlink_to("/dev/zero")
    rows += [{"path": name, "patient": "p0", "A": 1} for name in [*bad, "fifo.png", "zero.png"]]
    pd.DataFrame(rows).to_csv(root / "scans.csv", index=False)
    build_cohort(settings(root, "folder"), tmp_path / "out")
    refused = pd.read_csv(tmp_path / "out/quarantine.csv")
    assert refused["path"].tolist() == [*bad, "fifo.png", "zero.png"]
    assert set(refused["reason"]) == {"unreadable"}
    assert len(pd.read_csv(tmp_path / "out/manifest.csv")) == 24


MEASURE = """
import pathlib, re, sys
from octdino.scans.preprocess import decode_scan
from octdino.config import ImageSettings
import octdino.data.store, octdino.scans.retina
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
for path in sys.argv[1:]:
    before = peak()
    got = decode_scan(path, ImageSettings(channels=3, crop="retina", percentiles=(1, 99)))
    print(got.reason or "read", before, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_worker_is_bounded(tmp_path: Path) -> None:
    """13,000 x 13,000 pixels take nothing; what is allowed lets eight workers fit the 8 GB of the cohort rule."""
    big, allowed = tmp_path / "big.png", tmp_path / "allowed.png"
    big.write_bytes(png(13_000, 13_000, (b"IDAT", zlib.compress(bytes(13_001 * 13_000), 1))))
    rgba = np.random.default_rng(0).integers(0, 256, (1536, 2048, 4)).astype(np.uint8)
    Image.fromarray(rgba).save(allowed, compress_level=0)
    out = subprocess.check_output([sys.executable, "-c", MEASURE, str(big), str(allowed)], text=True).splitlines()
    (refused, _, nothing), (read, before, more) = (line.split() for line in out)
    assert (refused, read) == ("unreadable", "read")
    assert int(nothing) < 30e6
    assert 8 * (int(before) + int(more) / (1536 * 2048) * MAX_PIXELS) < 8e9


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_stretch_is_that_of_each_pixel(kind: type[np.unsignedinteger]) -> None:
    """The table of grey levels against the formula on the pixels themselves."""
    pixels = np.random.default_rng(1).integers(0, np.iinfo(kind).max + 1, (50, 70, 3)).astype(kind)
    low, high = np.percentile(pixels, (2, 97))
    expected = np.rint((np.clip(pixels, low, high) - low) * (255 / (high - low)))
    assert np.array_equal(to_uint8(pixels, (2, 97)), expected.astype(np.uint8))


def test_members_that_are_too_large_or_packed_otherwise_are_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_olives(settings(write(tmp_path / "root")))
    path = rows.scans["path"].iloc[1]
    monkeypatch.setattr(octdino.cohort.archives, "MAX_BYTES", 100)
    got = decode_scan(path, PLAIN, rows.image_source())
    assert got.reason == "unreadable"
    assert "bytes; expected at most 100" in got.detail


def test_a_row_group_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"Image": [{"bytes": encoded("PNG", GREY)}]}), tmp_path / "a.parquet")
    assert decode_scan("a.parquet/0", PLAIN, ShardSource(tmp_path)).image is not None
    octdino.cohort.olives.parquet._images_of_group.cache_clear()
    monkeypatch.setattr(octdino.cohort.olives.parquet, "MAX_GROUP", 100)
    got = decode_scan("a.parquet/0", PLAIN, ShardSource(tmp_path))
    assert got.reason == "unreadable"
    assert "a row group of " in got.detail


@pytest.mark.parametrize("name", ["a.zip", "a.parquet"])
def test_a_fifo_for_an_archive_is_one_line(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: no regular file"):
        read_olives(settings(tmp_path))


@pytest.mark.parametrize("content", [EPS, png(13_000, 13_000), encoded("PNG", GREY)[:300], b""])
def test_hostile_masks_are_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(UserError, match=r"mask.png: the mask cannot be read: ") as caught:
        read_truth(tmp_path, ["mask.png"], np.array([[0, 0, 40, 60]]), (40, 60), ["a"])
    assert "\n" not in str(caught.value)


def test_a_mask_that_is_a_fifo_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"mask.png: the mask cannot be read: a FIFO"):
        read_truth(tmp_path, ["mask.png"], np.array([[0, 0, 40, 60]]), (40, 60), ["a"])
    write_voc(tmp_path / "data")
    mask = min((tmp_path / "data").rglob("SegmentationClass/*.png"))
    mask.unlink()
    os.mkfifo(mask)
    with pytest.raises(UserError, match=rf"{mask.name}: a FIFO"):
        read_vision(settings(tmp_path / "data", "voc12"))


def test_errors_of_decoders_are_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a decoder raises at bytes that it was not made for."""

    def fail(self: PngImagePlugin.PngImageFile) -> None:
        raise AssertionError("first line\nsecond line")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(ImageError, match=r"^first line second line$"):
        read_image(encoded("PNG", GREY))
