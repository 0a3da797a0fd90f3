"""Damaged and hostile clinical files: one line without the patient, within seconds and 2 GiB of memory."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.registry import open_volume

from .written_dicom import NAME, NUMBER, dataset, write_compressed, write_dicom, write_streams
from .written_volumes import (
    FIRST,
    LAST,
    e2e_bytes,
    heyex_files,
    jp2,
    reflectivity,
    tiff_pages,
    topcon_bytes,
    vol_bytes,
    zeiss_file,
)

GRAY = np.random.default_rng(0).integers(0, 256, (3, 40, 64)).astype(np.uint8)
VOL, CODES = vol_bytes(reflectivity()), np.ones((3, 16, 16), np.uint16)
BOMB = (
    '<!DOCTYPE HEDX [<!ENTITY a "0123456789"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c '
    '"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)
EXTERNAL = '<!DOCTYPE HEDX [<!ENTITY passwd SYSTEM "file:///etc/passwd">]>'


def jp2_of_many_tiles() -> bytes:
    content = bytearray(jp2(GRAY[0]))
    start = content.index(b"\xff\x4f\xff\x51") + 8
    content[start + 16 : start + 24] = struct.pack(">2I", 1, 1)  # the size of a tile
    return bytes(content)


def e2e_of_many_entries() -> bytes:
    head = b"MDbDir".ljust(12, b"\0") + b"d\0\0\0" + bytes(20)
    content = e2e_bytes(CODES)
    assert head + b"\3" in content
    return content.replace(head + b"\3\0\0\0", head + b"\xff\xff\xff\0")


def deflated_dicom() -> bytes:
    """A DICOM whose header would unpack to 4 GiB."""
    out = io.BytesIO()
    found = dataset(GRAY)
    found.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    found.save_as(out, enforce_file_format=True)
    head = out.getvalue()[: out.getvalue().index(b"1.2.840.10008.1.2.1.99") + 200][:380]
    packed = zlib.compressobj(9, wbits=-15)
    block = packed.compress(bytes(2**24)) + packed.flush(zlib.Z_FULL_FLUSH)  # the same wherever it is
    return head + 256 * block + packed.flush()


def nested_dicom() -> bytes:
    """A DICOM with sequences in sequences, without an end."""
    out = io.BytesIO()
    dataset(GRAY).save_as(out, enforce_file_format=True)
    content = out.getvalue()
    place = content.index(struct.pack("<HH", 0x0010, 0x0010))
    item = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    return content[:place] + item * 20_000


def replaced(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def xml(folder: Path, **changes: object) -> None:
    heyex_files(folder, GRAY, "a.xml", **changes)


# By the name of the file: how it is made, and what the message says. Each is in a folder of its own.
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.vol": (lambda p: p.write_bytes(b""), "the file is empty"),
    "other.vol": (lambda p: p.write_bytes(b"GIF89a" + bytes(3000)), "does not begin with HSF-OCT"),
    "cut-header.vol": (lambda p: p.write_bytes(VOL[:100]), "truncated"),
    "cut-frame.vol": (lambda p: p.write_bytes(VOL[:-3000]), "truncated: .* bytes; its header says"),
    "no-frames.vol": (lambda p: p.write_bytes(vol_bytes(reflectivity(), count=0)), "0 B-scans"),
    "wide.vol": (lambda p: p.write_bytes(vol_bytes(reflectivity(), width=2**31)), "B-scans of 2147483648 x 20"),
    "many.vol": (lambda p: p.write_bytes(vol_bytes(reflectivity(), count=2**32 - 1)), "4,294,967,295 B-scans"),
    "slo.vol": (lambda p: p.write_bytes(vol_bytes(reflectivity(), slo=(2**32 - 1, 2**32 - 1))), "truncated"),
    "header.vol": (lambda p: p.write_bytes(vol_bytes(reflectivity(), header=4)), "headers of 4 bytes per B-scan"),
    "nan.vol": (lambda p: p.write_bytes(vol_bytes(np.full((2, 9, 9), np.nan, np.float32))), "NaN, infinite"),
    "cut.e2e": (lambda p: p.write_bytes(e2e_bytes(CODES)[:700]), "truncated"),
    "other.e2e": (lambda p: p.write_bytes(b"PK" + bytes(500)), "does not begin with CMDb"),
    "circle.e2e": (lambda p: p.write_bytes(e2e_bytes(CODES, circle=True)), "lead in circles"),
    "wide.e2e": (lambda p: p.write_bytes(e2e_bytes(CODES, size=(2**31, 2**31))), "B-scans of 2147483648 x"),
    "taller.e2e": (lambda p: p.write_bytes(e2e_bytes(CODES, size=(4000, 4000))), "truncated"),
    "far.e2e": (lambda p: p.write_bytes(e2e_bytes(CODES, start=2**30)), "truncated"),
    "entries.e2e": (lambda p: p.write_bytes(e2e_of_many_entries()), "truncated|a damaged directory"),
    "no-frames.e2e": (lambda p: p.write_bytes(e2e_bytes(CODES[:0])), "no B-scan in the file"),
    "cut.fda": (lambda p: p.write_bytes(topcon_bytes(GRAY)[:-900]), "truncated"),
    "count.fda": (lambda p: p.write_bytes(topcon_bytes(GRAY, count=4000)), "truncated: 3 of 4000 B-scans"),
    "wide.fda": (lambda p: p.write_bytes(topcon_bytes(GRAY, width=2**32 - 1)), "B-scans of 4294967295 x 40"),
    "garbage.fda": (lambda p: p.write_bytes(topcon_bytes(GRAY, streams=[bytes(500)] * 3)), "neither JPEG nor"),
    "size.fda": (lambda p: p.write_bytes(topcon_bytes(GRAY, height=41)), "expected 64 x 41"),
    "tiles.fda": (lambda p: p.write_bytes(topcon_bytes(GRAY, streams=[jp2_of_many_tiles()] * 3)), "2,560 tiles"),
    "short.fda": (lambda p: p.write_bytes(topcon_bytes(GRAY, streams=[jp2(GRAY[0])[:150]] * 3)), "damaged|truncated"),
    "wide.fds": (
        lambda p: p.write_bytes(topcon_bytes(GRAY.astype(np.uint16), False, width=4000, height=4000)),
        "truncated: .* bytes for 3 B-scans of 4000 x 4000",
    ),
    "bomb.xml": (lambda p: xml(p.parent, head=BOMB, last="&c;"), "declares a document type or entities"),
    "external.xml": (lambda p: xml(p.parent, head=EXTERNAL, last="&passwd;"), "declares a document type or entities"),
    "outside.xml": (lambda p: xml(p.parent, url="file:///../../../{}.png"), "beside it; first: a_1.tif.png"),
    "no-image.xml": (lambda p: xml(p.parent, url="/etc/passwd#{}/passwd"), "no name of an image file"),
    "deep.xml": (lambda p: xml(p.parent, more="<a>" * 5000 + "</a>" * 5000), "40 levels"),
    "long.xml": (lambda p: xml(p.parent, more="<a/>" * 600_000), "500,000 elements"),
    "cut.xml": (lambda p: p.write_bytes(heyex_files(p.parent, GRAY).read_bytes()[:900]), "no well-formed XML"),
    "none.xml": (lambda p: p.write_text("<HEDX><BODY/></HEDX>"), "0 B-scans in the XML"),
    "other.dcm": (lambda p: p.write_bytes(bytes(2000)), "DICM is not at byte 128"),
    "cut.dcm": (lambda p: p.write_bytes(write_dicom(p, GRAY).read_bytes()[:-100]), "truncated"),
    "head.dcm": (lambda p: p.write_bytes(write_dicom(p, GRAY).read_bytes()[:400]), "SOP class|truncated|damaged"),
    "deflated.dcm": (lambda p: p.write_bytes(deflated_dicom()), r"transfer syntax 1\.2\.840\.10008\.1\.2\.1\.99"),
    "nested.dcm": (lambda p: p.write_bytes(nested_dicom()), "damaged|no pixels"),
    "few.dcm": (
        lambda p: write_streams(p, GRAY, [jp2(GRAY[0])] * 3, JPEG2000Lossless, NumberOfFrames=4000),
        "truncated: 3 fragments; its header says 4000 frames",
    ),
    "garbage.dcm": (lambda p: write_streams(p, GRAY, [bytes(400)] * 3, JPEGLosslessSV1), "neither JPEG nor JPEG 2000"),
    "rle.dcm": (lambda p: write_streams(p, GRAY, [b"\1\0\0\0" + bytes(80)] * 3, RLELossless), "damaged"),
    "scan.dcm": (
        lambda p: replaced(write_compressed(p, GRAY, "JPEGBaselineProcess1"), b"\xff\xda", b"\xff\xd9"),
        "damaged|header",
    ),
    "text.dcm": (lambda p: replaced(write_dicom(p, GRAY), b"IS\2\x003 ", b"IS\2\0xy"), "damaged|not a whole number"),
    "cut_Cube 64x3_z.img": (lambda p: p.write_bytes(bytes(1024 * 64 * 3 - 1)), "a cube of 64 x 3"),
    "zero_Cube 00x3_z.img": (lambda p: p.write_bytes(bytes(3072)), "B-scans of 0 x 1024"),
    "circle.tif": (lambda p: p.write_bytes(b"II*\0" + struct.pack("<IHHHIII", 8, 1, 256, 4, 1, 9, 8)), "circles"),
    "far.tif": (lambda p: p.write_bytes(b"II*\0" + struct.pack("<IHHHIII", 8, 1, 256, 4, 1, 9, 2**31)), "truncated"),
    "cut.tif": (lambda p: p.write_bytes(tiff_pages(p, GRAY).read_bytes()[:-60]), "truncated"),
}  # fmt: skip
CHILD = """
import json, resource, sys, time
from pathlib import Path
from octdino.scans.image_files import ImageError
from octdino.scans.volumes.registry import open_volume
import pydicom.pixels, gdcm  # so that their import does not count
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
for path in sorted(Path(sys.argv[1]).glob("*/*")):
    if path.name != path.parent.name:
        continue
    start, said = time.monotonic(), ""
    try:
        volume = open_volume(path)
        for index in range(len(volume.frames)):
            volume.read(index)
    except ImageError as error:
        said = str(error)
    print(json.dumps([path.name, said, time.monotonic() - start]), flush=True)
"""


def write_broken(root: Path) -> Path:
    """Write every broken file into a folder of its own name below root, with what belongs to it."""
    for name, (make, _) in BROKEN.items():
        (root / name).mkdir()
        make(root / name / name)
        if name.endswith(".xml") and (root / name / "a.xml").exists():
            (root / name / "a.xml").rename(root / name / name)
    return root


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float]]:
    """What each broken file's reading says, and its seconds, in a process of at most 2 GiB."""
    root = write_broken(tmp_path_factory.mktemp("broken"))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (said, seconds) for name, said, seconds in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_in_bounded_time_and_memory(answers: dict, name: str) -> None:
    said, seconds = answers[name]
    assert re.search(BROKEN[name][1], said), said
    assert "\n" not in said
    assert len(said) < 300
    assert seconds < 5
    for secret in (FIRST, LAST, NUMBER, NAME, "7788123"):
        assert secret.casefold() not in said.casefold()


def test_frames_outside_the_file_are_refused(tmp_path: Path) -> None:
    cube = zeiss_file(tmp_path, np.ones((3, 1024, 20), np.uint8))
    for index in (3, -1):
        with pytest.raises(ImageError, match=f"no B-scan {index}; the file has 0 to 2"):
            open_volume(cube).read(index)
