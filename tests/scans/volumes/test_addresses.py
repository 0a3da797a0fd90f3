"""Addresses `path#N`, the file that stays open between frames, and arrays of 16 bits."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octdino.config import ImageSettings
from octdino.scans.decode_pool import decode_scans
from octdino.scans.image_files import ImageError
from octdino.scans.preprocess import decode_scan, load_pixels
from octdino.scans.sources import FolderSource
from octdino.scans.volumes import registry
from octdino.scans.volumes.registry import list_frames, split_address, without_parts

from .written_dicom import write_dicom
from .written_volumes import heyex_files

GRAY = np.random.default_rng(0).integers(0, 256, (4, 40, 52)).astype(np.uint8)
DEEP = GRAY.astype(np.uint16) * 257
PLAIN = ImageSettings(size=(20, 30))


def test_addresses_are_split_at_the_last_sign() -> None:
    assert split_address("a/b.vol#12") == ("a/b.vol", 12)
    assert split_address("a#1/b#2#3") == ("a#1/b#2", 3)
    for plain in ("a.vol", "a.vol#", "a.vol#x", "a.vol#-1", "#3"):
        assert split_address(plain) == (plain, None)


def test_the_source_reads_b_scans_and_a_file_of_that_very_name_first(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", GRAY)
    Image.fromarray(GRAY[3]).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.dcm#1")
    source = FolderSource(tmp_path)
    assert np.array_equal(source("a.dcm#2"), GRAY[2])
    assert source("a.dcm#1") == tmp_path / "a.dcm#1"
    assert source("other.png") == tmp_path / "other.png"
    with pytest.raises(FileNotFoundError):
        source("none.dcm#0")
    with pytest.raises(ImageError, match="no B-scan 4; the file has 0 to 3"):
        source("a.dcm#4")
    Image.fromarray(GRAY[0]).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match="not a file of several B-scans"):
        source("b.png#0")


def test_a_file_is_opened_once_for_its_frames_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = registry.open_volume
    monkeypatch.setattr(registry, "open_volume", lambda path: opened.append(path.name) or real(path))
    first, second = write_dicom(tmp_path / "1.dcm", GRAY), write_dicom(tmp_path / "2.dcm", GRAY[:2])
    source = FolderSource(tmp_path)
    for address in ("1.dcm#0", "1.dcm#3", "1.dcm#1", "2.dcm#0", "2.dcm#1"):
        source(address)
    assert opened == ["1.dcm", "2.dcm"]
    write_dicom(second, 255 - GRAY[:2])
    os.utime(second, ns=(1, 1))
    assert np.array_equal(source("2.dcm#1"), 255 - GRAY[1])
    assert np.array_equal(source(f"{first.name}#1"), GRAY[1])
    assert opened == ["1.dcm", "2.dcm", "2.dcm", "1.dcm"]


def test_b_scans_are_decoded_by_several_processes_in_order(tmp_path: Path) -> None:
    many = np.random.default_rng(1).integers(0, 256, (140, 24, 24)).astype(np.uint8)
    write_dicom(tmp_path / "a.dcm", many)
    paths = [f"a.dcm#{n}" for n in range(140)] + ["a.dcm#140"]
    settings = ImageSettings(size=(24, 24))
    found = list(decode_scans(paths, FolderSource(tmp_path), settings, workers=2))
    assert all(np.array_equal(scan.image[0], many[n]) for n, scan in enumerate(found[:-1]))
    assert (found[-1].reason, found[-1].detail) == ("unreadable", "no B-scan 140; the file has 0 to 139")


def test_arrays_of_16_bits_are_as_files_of_16_bits(tmp_path: Path) -> None:
    deep = DEEP[0] + np.arange(52, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    for channels in (1, 3):
        file, array = (load_pixels(source, channels) for source in (tmp_path / "a.png", deep))
        assert file.dtype == array.dtype
        assert np.array_equal(file, array)
    narrow = deep >> 4
    for percentiles in (None, (1, 99)):
        settings = ImageSettings(size=(20, 30), percentiles=percentiles)
        Image.fromarray(narrow).save(tmp_path / "b.png")
        file, array = decode_scan(tmp_path / "b.png", settings), decode_scan("b", settings, lambda _: narrow)
        assert np.array_equal(file.image, array.image)
        assert (file.digest, file.flags) == (array.digest, array.flags)
    assert array.flags == ""
    assert decode_scan("b", PLAIN, lambda _: narrow).flags == "narrow_grey"


def test_images_of_an_export_are_no_scans_of_their_own(tmp_path: Path) -> None:
    export = heyex_files(tmp_path, GRAY)
    Image.fromarray(GRAY[0]).save(tmp_path / "other.png")
    (tmp_path / "broken.xml").write_text("<HEDX>")
    assert without_parts(sorted(tmp_path.iterdir())) == [tmp_path / "broken.xml", export, tmp_path / "other.png"]
    assert list_frames(export)[-1] == f"{export}#3"
