"""Heidelberg's raw exports, XML exports and backups: pixels and headers against independent sources."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.registry import list_frames, open_volume
from octdino.scans.volumes.volume import FrameInfo

from .written_volumes import INVALID, e2e_bytes, heyex_files, naive_vol, reflectivity, vol_bytes


def shown(values: np.ndarray) -> np.ndarray:
    """Gray levels as the format's description has them: 255 x^(1/4), black without data."""
    gray = np.where(values >= 3e38, 0, np.clip(values.astype(np.float64), 0, 1) ** 0.25 * 255)
    return np.round(gray).astype(np.uint8)


def test_vol_pixels_and_header(tmp_path: Path) -> None:
    path = tmp_path / "a.vol"
    path.write_bytes(vol_bytes(reflectivity(), eye=b"OS"))
    volume = open_volume(path)
    expected = shown(naive_vol(path.read_bytes()))
    assert volume.frames == tuple(FrameInfo(1, n, "OS") for n in (1, 2, 3))
    assert [np.array_equal(volume.read(n), expected[n]) for n in (2, 0, 1)] == [True] * 3
    assert expected.max() > 250
    assert (volume.read(0)[:2, :3] == 0).all()
    assert (volume.visit, volume.cst, volume.device) == ("2019-03-05", 287.0, "Heidelberg")
    assert volume.series[0].patient_id == "MRN7788123"


def test_vol_without_an_id_has_the_database_number_as_identity(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{n}.vol" for n in "123")
    first.write_bytes(vol_bytes(reflectivity(1), patient=b"unknown", pid=5))
    second.write_bytes(vol_bytes(reflectivity(2), patient=b"", pid=5))
    third.write_bytes(vol_bytes(reflectivity(2), patient=b"", pid=0))
    one, same, nobody = (open_volume(path) for path in (first, second, third))
    assert one.patient == same.patient is not None
    assert nobody.patient is None
    assert one.series[0].patient_id is None


@pytest.mark.parametrize("grid", [{"grid": 0}, {"grid_at": 2**31}, {"cst": float("nan")}, {"cst": 250.0}])
def test_vol_thickness_is_left_out_where_there_is_none(tmp_path: Path, grid: dict) -> None:
    (tmp_path / "a.vol").write_bytes(vol_bytes(reflectivity(), **grid))
    assert open_volume(tmp_path / "a.vol").cst is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_vol_with_impossible_reflectivity_is_refused(tmp_path: Path, value: float) -> None:
    frames = reflectivity()
    frames[1, 5, 5] = value
    (tmp_path / "a.vol").write_bytes(vol_bytes(frames))
    volume = open_volume(tmp_path / "a.vol")
    volume.read(0)
    with pytest.raises(ImageError, match="NaN, infinite or negative reflectivity"):
        volume.read(1)


def test_real_vol_against_a_naive_reader(shared_data: Path) -> None:
    path = shared_data / "oct_formats" / "spectralis_one_scan.vol"
    volume = open_volume(path)
    content = path.read_bytes()
    pixels = np.frombuffer(content[-4 * 496 * 768 :], "<f4").reshape(496, 768)  # nothing follows the only frame
    assert np.array_equal(volume.read(0), shown(pixels))
    assert (pixels >= INVALID).any() or pixels.max() <= 1
    assert (len(volume.frames), volume.frames[0].laterality, volume.visit) == (1, "OD", "2011-11-09")


def test_made_up_vol_of_eyepy(shared_data: Path) -> None:
    volume = open_volume(shared_data / "oct_formats" / "small.vol")
    content = (shared_data / "oct_formats" / "small.vol").read_bytes()
    step = (len(content) - 2048 - 50 * 50) // 10
    for n in (0, 4, 9):
        end = 2048 + 50 * 50 + (n + 1) * step
        pixels = np.frombuffer(content[end - 4 * 50 * 40 : end], "<f4").reshape(40, 50)
        assert np.array_equal(volume.read(n), shown(pixels))


def test_heyex_xml_pixels_and_header(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (4, 20, 30)).astype(np.uint8)
    path = heyex_files(tmp_path, frames)
    volume = open_volume(path)
    assert [np.array_equal(volume.read(n), frames[n]) for n in range(4)] == [True] * 4
    assert volume.frames == tuple(FrameInfo(1, n, "OD") for n in (1, 2, 3, 4))
    assert (volume.visit, volume.cst) == ("2019-03-05", 287.0)
    assert volume.device == "Heidelberg Engineering Spectralis"
    assert {part.name for part in volume.parts} == {f"export_{n}.tif" for n in range(5)}
    assert list_frames(path) == [f"{path}#{n}" for n in range(4)]


def test_a_missing_image_of_an_export_is_missing_alone(tmp_path: Path) -> None:
    path = heyex_files(tmp_path, np.zeros((3, 10, 10), np.uint8))
    (tmp_path / "export_2.tif").unlink()
    volume = open_volume(path)
    assert len(volume.frames) == 3
    with pytest.raises(FileNotFoundError):
        volume.read(1)
    assert volume.read(2).shape == (10, 10)


def test_an_image_of_another_size_than_the_xml_says_is_refused(tmp_path: Path) -> None:
    path = heyex_files(tmp_path, np.zeros((2, 10, 12), np.uint8))
    Image.fromarray(np.zeros((24, 24), np.uint8)).save(tmp_path / "export_1.tif")
    with pytest.raises(ImageError, match=r"export_1\.tif: 24 x 24 pixels; the XML says 12 x 10"):
        open_volume(path).read(0)


def test_real_exports_against_their_own_images(shared_data: Path) -> None:
    """The TIFFs hold the pixels, the table of the shared folder says which of them is the fundus image."""
    table = (shared_data / "oct_volumes" / "scans.csv").read_text().split()[1:]
    scans = sorted(row.split(",")[0] for row in table if ",bscan," in row)
    found = []
    for path, cst, eye in (("AMD_patient1/F8342C30", 319.0, "OS"), ("healthy_subject1/5EF03DB0", 300.0, "OD")):
        volume = open_volume(shared_data / "oct_volumes" / f"{path}.xml")
        assert (len(volume.frames), volume.cst, volume.frames[0].laterality) == (49, cst, eye)
        named = {part.relative_to(shared_data / "oct_volumes").as_posix() for part in volume.parts}
        found += sorted(named & set(scans))
        assert len(named - set(scans)) == 1
    assert found == scans
    volume = open_volume(shared_data / "oct_volumes" / "AMD_patient1" / "F8342C30.xml")
    for n, name in ((0, "FD430890"), (48, "46E5C50")):
        assert np.array_equal(
            volume.read(n), np.asarray(Image.open(shared_data / f"oct_volumes/AMD_patient1/{name}.tif").convert("L"))
        )


def test_e2e_pixels_order_and_header(tmp_path: Path) -> None:
    codes = np.random.default_rng(2).integers(0, 65536, (5, 16, 24)).astype(np.uint16)
    for several in (False, True):
        path = tmp_path / f"{several}.E2E"
        path.write_bytes(e2e_bytes(codes, several))
        volume = open_volume(path)
        exponents, mantissas = codes.astype(int) // 1024, codes.astype(int) % 1024
        values = np.where(exponents == 0, 0.0, (1 + mantissas / 1024) * 2.0 ** (exponents - 63))
        expected = shown(np.where(codes == 65535, 0, values))
        assert all(np.array_equal(volume.read(n), expected[n]) for n in range(5))
        assert volume.frames == tuple(FrameInfo(1, n + 1, "OS") for n in range(5))
        assert volume.visit == "2019-03-05"
        assert volume.series[0].patient_id == "MRN7788123"


def test_e2e_without_an_id_is_known_by_name_and_birth(tmp_path: Path) -> None:
    (tmp_path / "a.e2e").write_bytes(e2e_bytes(np.ones((1, 4, 4), np.uint16), patient=""))
    series = open_volume(tmp_path / "a.e2e").series[0]
    assert series.patient == "name zweistein albertine born 11420"
    assert series.patient_id is None
    assert "zweistein" not in repr(series).casefold()
