"""DICOM Ophthalmic Tomography in each transfer syntax: pixels against the arrays that were written."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.registry import open_volume
from octdino.scans.volumes.volume import FrameInfo

from .written_dicom import PHOTOGRAPH, dataset, write_compressed, write_dicom, write_rle

EIGHT = np.random.default_rng(0).integers(0, 256, (5, 40, 64)).astype(np.uint8)
SIXTEEN = np.random.default_rng(1).integers(0, 65536, (5, 40, 64)).astype(np.uint16)
LOSSLESS = ("JPEGLosslessProcess14_1", "JPEGLosslessProcess14", "JPEG2000Lossless", "JPEGLSLossless", "RLELossless")


def pixels(path: Path) -> np.ndarray:
    volume = open_volume(path)
    return np.stack([volume.read(n) for n in range(len(volume.frames))])


@pytest.mark.parametrize("frames", [EIGHT, SIXTEEN], ids=["8", "16"])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_compression_is_exact(tmp_path: Path, frames: np.ndarray, syntax: str) -> None:
    found = pixels(write_compressed(tmp_path / "a.dcm", frames, syntax))
    assert found.dtype == frames.dtype
    assert np.array_equal(found, frames)


@pytest.mark.parametrize("frames", [EIGHT, SIXTEEN], ids=["8", "16"])
def test_uncompressed_and_rle_of_pydicom(tmp_path: Path, frames: np.ndarray) -> None:
    assert np.array_equal(pixels(write_dicom(tmp_path / "a.dcm", frames)), frames)
    assert np.array_equal(pixels(write_rle(tmp_path / "b.dcm", frames)), frames)
    for name, syntax, order in (("c", ImplicitVRLittleEndian, "<"), ("d", ExplicitVRBigEndian, ">")):
        found = dataset(frames)
        found.file_meta.TransferSyntaxUID = syntax
        found.PixelData = frames.astype(frames.dtype.newbyteorder(order)).tobytes()
        found.save_as(tmp_path / name, implicit_vr=order == "<", little_endian=order == "<", enforce_file_format=True)
        assert np.array_equal(pixels(tmp_path / name), frames)


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", "JPEGExtendedProcess2_4", "JPEG2000", "JPEGLSNearLossless"])
def test_lossy_compression_is_near(tmp_path: Path, syntax: str) -> None:
    smooth = np.broadcast_to(np.linspace(10, 240, 64), (3, 40, 64)).astype(np.uint8)
    found = pixels(write_compressed(tmp_path / "a.dcm", np.ascontiguousarray(smooth), syntax))
    assert np.abs(found.astype(int) - smooth).max() <= 4


def test_monochrome1_is_inverted_and_twelve_bits_fill_the_range(tmp_path: Path) -> None:
    inverted = write_dicom(tmp_path / "a.dcm", EIGHT, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(pixels(inverted), 255 - EIGHT)
    twelve = SIXTEEN >> 4
    path = write_compressed(tmp_path / "b.dcm", twelve, "JPEG2000Lossless", BitsStored=12, HighBit=11)
    assert np.array_equal(pixels(path), twelve << 4)
    path = write_dicom(tmp_path / "c.dcm", twelve, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(pixels(path), (4095 - twelve) << 4)


def test_header_and_functional_groups(tmp_path: Path) -> None:
    groups = []
    for place, side in ((3, "L"), (1, "L"), (2, "R"), (5, "R"), (4, "R")):
        group, content, anatomy = Dataset(), Dataset(), Dataset()
        content.InStackPositionNumber, anatomy.FrameLaterality = place, side
        group.FrameContentSequence, group.FrameAnatomySequence = Sequence([content]), Sequence([anatomy])
        groups.append(group)
    path = write_dicom(tmp_path / "1.2.3.4", EIGHT, PerFrameFunctionalGroupsSequence=Sequence(groups))
    volume = open_volume(path)
    assert [frame.slice for frame in volume.frames] == [3, 1, 2, 5, 4]
    assert [frame.laterality for frame in volume.frames] == ["OS", "OS", "OD", "OD", "OD"]
    assert (volume.visit, volume.device) == ("2019-03-05", "Acme Scanner 3")
    assert open_volume(write_dicom(tmp_path / "b.dcm", EIGHT)).frames[4] == FrameInfo(1, 5, "OD")


@pytest.mark.parametrize("table", [True, False], ids=["offset table", "end markers"])
def test_frames_of_several_fragments(tmp_path: Path, table: bool) -> None:
    whole = dcmread(write_compressed(tmp_path / "a.dcm", EIGHT, "JPEGLosslessProcess14_1"))
    from pydicom.encaps import generate_frames

    frames = list(generate_frames(whole.PixelData, number_of_frames=5))
    whole.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=table)
    whole.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert np.array_equal(pixels(tmp_path / "b.dcm"), EIGHT)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SOPClassUID": PHOTOGRAPH}, r"a fundus photograph \(Ophthalmic Photography, 8 bit\); expected B-scans"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, r"a screen capture \(Secondary Capture\)"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
            r"SOP class 1\.2\.840\.10008\.5\.1\.4\.1\.1\.2; expected B-scans",
        ),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "3 samples per pixel"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "expected gray B-scans"),
        ({"PixelRepresentation": 1}, "signed pixels"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 of 32 bits"),
        ({"HighBit": 5, "BitsStored": 6}, None),
        ({"HighBit": 7, "BitsStored": 4}, "4 of 8 bits"),
        ({"Rows": 0}, "B-scans of 64 x 0 pixels"),
        ({"NumberOfFrames": 0}, "0 B-scans"),
        ({"NumberOfFrames": 2**31 - 1}, "2,147,483,647 B-scans; expected 1 to 4,096"),
        ({"NumberOfFrames": 4096}, "truncated: 12,800 bytes of pixels; its header says 10,485,760"),
        ({"Rows": 65535, "Columns": 65535}, "B-scans of 65535 x 65535 pixels"),
    ],
)
def test_what_is_no_volume_of_gray_b_scans_is_refused(tmp_path: Path, changes: dict, reason: str | None) -> None:
    path = write_dicom(tmp_path / "a.dcm", EIGHT, **changes)
    if reason is None:
        assert np.array_equal(pixels(path), (EIGHT & 63) << 2)
        return
    with pytest.raises(ImageError, match=reason):
        open_volume(path)


def test_a_stream_of_another_size_than_the_header_is_not_decoded(tmp_path: Path) -> None:
    path = write_compressed(tmp_path / "a.dcm", EIGHT, "JPEGBaselineProcess1")
    content = path.read_bytes()
    start = content.index(b"\xff\xc0")
    bomb = content[: start + 5] + struct.pack(">HH", 65000, 65000) + content[start + 9 :]
    path.write_bytes(bomb)
    volume = open_volume(path)
    with pytest.raises(
        ImageError, match="a compressed frame of 65000 x 65000 pixels with 1 components; expected 64 x 40"
    ):
        volume.read(0)
    assert np.abs(volume.read(1).astype(int) - EIGHT[1]).max() < 128


@pytest.mark.parametrize("missing", ["pydicom", "gdcm"])
def test_without_the_extra_one_line_names_it(tmp_path: Path, missing: str) -> None:
    path = write_compressed(tmp_path / "a.dcm", EIGHT, "JPEGLosslessProcess14_1")
    code = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom pathlib import Path\n"
        "from octdino.errors import UserError\nfrom octdino.scans.volumes.registry import open_volume\n"
        f"try: open_volume(Path({str(path)!r}))\nexcept UserError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.count("\n") == 1
    assert "pip install 'octdino[clinic]'" in out


def test_dicom_syntaxes_that_only_pillow_decodes_need_no_gdcm(tmp_path: Path) -> None:
    path = write_compressed(tmp_path / "a.dcm", EIGHT, "JPEG2000Lossless")
    assert dcmread(path).file_meta.TransferSyntaxUID != JPEGBaseline8Bit
    code = (
        "import sys; sys.modules['gdcm'] = None\nfrom pathlib import Path\n"
        "from octdino.scans.volumes.registry import open_volume\n"
        f"print(open_volume(Path({str(path)!r})).read(2).sum())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == EIGHT[2].sum()
