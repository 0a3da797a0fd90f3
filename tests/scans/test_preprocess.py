import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from octdino.config import ImageSettings
from octdino.scans.preprocess import decode_scan, load_pixels, resized

PLAIN = ImageSettings(size=(20, 30))
GREY = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_lossless_grey_comes_as_it_is(tmp_path: Path, name: str) -> None:
    assert np.array_equal(load_pixels(save(tmp_path / name, GREY), 1), GREY)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    assert np.array_equal(load_pixels(save(tmp_path / "a.tif", GREY, compression=compression), 1), GREY)


def test_jpeg_is_near(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    got = load_pixels(save(tmp_path / "a.jpg", smooth, quality=95), 1)
    assert np.abs(got.astype(int) - smooth).max() <= 4


def test_grey_stored_as_rgb_is_the_same_picture_with_the_same_hash(tmp_path: Path) -> None:
    grey = decode_scan(save(tmp_path / "a.png", GREY), PLAIN)
    rgb = decode_scan(save(tmp_path / "b.tif", np.repeat(GREY[:, :, None], 3, axis=2)), PLAIN)
    assert np.array_equal(grey.image, rgb.image)
    assert grey.digest == rgb.digest


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[:, :10, 0] = colours[:, 10:20, 1] = colours[:, 20:, 2] = 255
    got = load_pixels(save(tmp_path / "a.png", colours), 1)
    assert [got[0, 5], got[0, 15], got[0, 25]] == [76, 150, 29]  # 0.299, 0.587, 0.114 of 255


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[:, :, 3] = np.arange(30) * 8  # black, ever more opaque
    got = load_pixels(save(tmp_path / "a.png", pixels), 1)
    assert np.abs(got[0].astype(int) - (255 - np.arange(30) * 8)).max() <= 1


def test_grey_with_alpha_and_palette_with_transparency(tmp_path: Path) -> None:
    both = np.stack([GREY, np.full_like(GREY, 255)], axis=2)
    assert np.array_equal(load_pixels(save(tmp_path / "a.png", both), 1), GREY)
    palette = Image.fromarray(GREY % 2).convert("P")
    palette.putpalette([10, 10, 10, 200, 200, 200])
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.array_equal(np.unique(load_pixels(tmp_path / "p.png", 1)), [200, 255])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "be.tif"])
def test_sixteen_bits_become_the_high_byte(tmp_path: Path, name: str) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (40, 60)).astype(np.uint16)
    if name == "be.tif":
        tifffile.imwrite(tmp_path / name, deep, byteorder=">")
    else:
        save(tmp_path / name, deep)
    assert np.array_equal(load_pixels(tmp_path / name, 1), deep)
    got = decode_scan(tmp_path / name, ImageSettings(size=(40, 60)))
    assert np.array_equal(got.image[0], deep // 256)


def test_sixteen_bit_rgb_tiff(tmp_path: Path) -> None:
    deep = np.repeat((GREY.astype(np.uint16) * 257)[:, :, None], 3, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    assert np.array_equal(load_pixels(tmp_path / "a.tif", 1), GREY)


def test_twelve_bits_in_sixteen_are_flagged_and_stretched_on_request(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 16)
    assert decode_scan(path, PLAIN).flags == "narrow_grey"
    stretched = decode_scan(path, ImageSettings(size=(40, 60), percentiles=(0, 100)))
    assert stretched.flags == ""
    low, high = int(GREY.min()), int(GREY.max())
    expected = np.rint((GREY.astype(float) - low) * 255 / (high - low))
    assert np.abs(stretched.image[0].astype(float) - expected).max() <= 1


def test_floats(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.float32) / 255)
    assert np.array_equal(decode_scan(tmp_path / "a.tif", ImageSettings(size=(40, 60))).image[0], GREY)
    tifffile.imwrite(tmp_path / "b.tif", GREY.astype(np.float32))
    assert decode_scan(tmp_path / "b.tif", PLAIN).reason == "unreadable"
    tifffile.imwrite(tmp_path / "c.tif", np.full((40, 60), np.nan, np.float32))
    assert decode_scan(tmp_path / "c.tif", PLAIN).reason == "unreadable"


def test_three_channels(tmp_path: Path) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    got = decode_scan(save(tmp_path / "a.png", colours), ImageSettings(size=(40, 60), channels=3))
    assert np.array_equal(got.image, colours.transpose(2, 0, 1))
    grey = decode_scan(save(tmp_path / "b.png", GREY), ImageSettings(size=(40, 60), channels=3))
    assert np.array_equal(grey.image, np.stack([GREY] * 3))


def test_up_stays_up_and_left_stays_left(tmp_path: Path) -> None:
    picture = np.full((100, 60), 10, np.uint8)
    picture[:20, :15] = 250
    got = decode_scan(save(tmp_path / "a.png", picture), PLAIN).image[0]  # 20 x 30
    assert got[:3, :6].min() > 240
    assert got[8:].max() == 10
    assert got[:, 12:].max() == 10


def test_cameras_rotation_is_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))).save(tmp_path / "a.png", exif=exif)
    assert load_pixels(tmp_path / "a.png", 1).shape == (60, 40)


def test_shrinking_is_antialiased() -> None:
    board = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(resized(board, (50, 50)).astype(int) - 127).max() <= 8  # picking pixels would give 0 or 255


def test_moments_are_the_stored_pictures(tmp_path: Path) -> None:
    got = decode_scan(save(tmp_path / "a.png", GREY), PLAIN)
    values = got.image / 255
    assert got.moments[:, 0] == pytest.approx([values.mean(), (values**2).mean()])
    assert got.size == (60, 40)
    assert got.box == (0, 0, 40, 60)


def test_constant(tmp_path: Path) -> None:
    assert decode_scan(save(tmp_path / "a.png", np.full((9, 9), 7, np.uint8)), PLAIN).reason == "constant"
    faint = np.arange(81, dtype=np.uint16).reshape(9, 9)
    got = decode_scan(save(tmp_path / "b.png", faint), PLAIN)
    assert got.reason == "constant"
    assert "percentiles" in got.detail


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    assert decode_scan(tmp_path / "zero.png", PLAIN).detail == "the file is empty"
    assert "no known image format" in decode_scan(tmp_path / "text.png", PLAIN).detail
    assert decode_scan(tmp_path / "none.png", PLAIN).reason == "missing_file"
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([GREY, GREY]), photometric="minisblack")
    assert "more than one image" in decode_scan(tmp_path / "stack.tif", PLAIN).detail


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert decode_scan(tmp_path / "a.png", PLAIN).reason == "unreadable"


FORMATS = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 90},
    "tif": {"format": "TIFF"},
    "tiff": {"format": "TIFF", "compression": "tiff_lzw"},
}


@given(kind=st.sampled_from(sorted(FORMATS)), share=st.floats(0, 1), data=st.data())
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_or_damaged_files_never_raise(tmp_path: Path, kind: str, share: float, data: st.DataObject) -> None:
    """Cut anywhere or with bytes changed: refused as unreadable, or a picture of the right shape."""
    out = io.BytesIO()
    Image.fromarray(GREY).save(out, **FORMATS[kind])
    content = bytearray(out.getvalue())
    if data.draw(st.booleans()):
        content = content[: int(share * len(content))]
    else:
        content[int(share * (len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / f"a.{kind}").write_bytes(content)
    got = decode_scan(tmp_path / f"a.{kind}", PLAIN)
    assert got.reason in ("unreadable", "constant") if got.image is None else got.image.shape == (1, 20, 30)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_half_a_file_is_unreadable(tmp_path: Path, kind: str) -> None:
    out = io.BytesIO()
    Image.fromarray(GREY).save(out, **FORMATS[kind])
    (tmp_path / f"a.{kind}").write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    assert decode_scan(tmp_path / f"a.{kind}", PLAIN).reason == "unreadable"
