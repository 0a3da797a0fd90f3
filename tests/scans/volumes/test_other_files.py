"""Topcon, Zeiss and TIFF pages: pixels against the arrays that were written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.registry import is_volume, list_frames, open_volume
from octdino.scans.volumes.volume import FrameInfo

from .written_volumes import tiff_pages, topcon_bytes, zeiss_file

GRAY = np.random.default_rng(0).integers(0, 256, (4, 40, 52)).astype(np.uint8)


def test_fda_with_jpeg_2000(tmp_path: Path) -> None:
    (tmp_path / "a.fda").write_bytes(topcon_bytes(GRAY))
    volume = open_volume(tmp_path / "a.fda")
    assert all(np.array_equal(volume.read(n), GRAY[n]) for n in range(4))
    assert volume.frames == tuple(FrameInfo(1, n + 1, "OS") for n in range(4))
    assert (volume.visit, volume.device) == ("2019-03-05", "Topcon 3DOCT-1")
    assert volume.series[0].patient_id == "MRN7788123"


def test_fds_of_16_bits(tmp_path: Path) -> None:
    deep = GRAY.astype(np.uint16) * 200 + 7
    (tmp_path / "a.fds").write_bytes(topcon_bytes(deep, compressed=False))
    volume = open_volume(tmp_path / "a.fds")
    assert volume.read(3).dtype == np.uint16
    assert all(np.array_equal(volume.read(n), deep[n]) for n in range(4))


def test_a_hidden_patient_is_the_same_in_each_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.fda").write_bytes(topcon_bytes(GRAY[: 2 + (name == "b")], info=b"@PATIENT_INFO_03"))
    first, second = (open_volume(tmp_path / f"{name}.fda") for name in ("a", "b"))
    assert first.patient == second.patient is not None
    assert first.series[0].patient_id is None


def test_zeiss_cube(tmp_path: Path) -> None:
    cube = np.random.default_rng(3).integers(0, 256, (3, 1024, 20)).astype(np.uint8)
    volume = open_volume(zeiss_file(tmp_path, cube))
    assert all(np.array_equal(volume.read(n), cube[n]) for n in range(3))
    assert volume.frames[2] == FrameInfo(1, 3, "OS")
    assert (volume.visit, volume.series[0].patient_id) == ("2019-03-25", "P0042")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("P1_Macular Cube 20x3_3-5-2019_9-5-2_OD_sn1_FlowCube_z.img", "a Zeiss flow file"),
        ("P1_Macular Cube 20x3_3-5-2019_9-5-2_OD_sn1_cube_raw.img", "a Zeiss raw file"),
        ("P1_3-5-2019_9-5-2_OD_sn1_lslo.img", "a Zeiss lslo file"),
        ("disk.img", "no size of a cube in the file's name"),
        ("P1_Macular Cube 21x3_3-5-2019_9-5-2_OD_sn1_cube_z.img", "61,440 bytes; a cube of 21 x 3 has 64,512"),
    ],
)
def test_other_img_files_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    path = zeiss_file(tmp_path, np.ones((3, 1024, 20), np.uint8), name)
    with pytest.raises(ImageError, match=reason):
        open_volume(path)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_pages(tmp_path: Path, options: dict, depth: int) -> None:
    frames = GRAY if depth == 8 else GRAY.astype(np.uint16) * 257
    path = tiff_pages(tmp_path / "a.tif", frames, **options)
    volume = open_volume(path)
    assert all(np.array_equal(volume.read(n), frames[n]) for n in (3, 1, 0, 2))
    assert volume.read(0).dtype == frames.dtype
    assert list_frames(path)[1:] == [f"{path}#{n}" for n in (1, 2, 3)]


def test_pages_of_two_sizes_thumbnails_and_palettes_are_refused(tmp_path: Path) -> None:
    big, small = Image.fromarray(GRAY[0]), Image.fromarray(GRAY[1, ::2, ::2])
    big.save(tmp_path / "sizes.tif", save_all=True, append_images=[small])
    Image.fromarray(GRAY[0]).convert("P").save(
        tmp_path / "palette.tif", save_all=True, append_images=[big.convert("P")]
    )
    tiff_pages(tmp_path / "thumbs.tif", GRAY[:2], tiffinfo={254: 1})
    for name, reason in (("sizes", "pages of 2 sizes"), ("palette", "from a palette"), ("thumbs", "thumbnails")):
        with pytest.raises(ImageError, match=reason):
            open_volume(tmp_path / f"{name}.tif")


def test_which_files_are_volumes(tmp_path: Path) -> None:
    tiff_pages(tmp_path / "pages.tif", GRAY)
    Image.fromarray(GRAY[0]).save(tmp_path / "one.tif")
    Image.fromarray(GRAY[0]).save(tmp_path / "one.png")
    (tmp_path / "notes.xml").write_text("<annotation><size/></annotation>")
    (tmp_path / "export.xml").write_text("<?xml version='1.0'?>\n<HEDX><BODY/></HEDX>")
    (tmp_path / "1.2.840.5").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "README").write_text("text")
    (tmp_path / "folder.vol").mkdir()
    found = {path.name for path in tmp_path.iterdir() if is_volume(path)}
    assert found == {"pages.tif", "export.xml", "1.2.840.5"}
    assert list_frames(tmp_path / "one.tif") == [str(tmp_path / "one.tif")]
