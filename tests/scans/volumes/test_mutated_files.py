"""Clinical files with random damage: read, or refused by one line without the patient; never another error."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from octdino.scans.image_files import ImageError
from octdino.scans.volumes.registry import open_volume

from .written_dicom import write_compressed, write_dicom, write_rle
from .written_volumes import (
    FIRST,
    LAST,
    NUMBER,
    e2e_bytes,
    heyex_files,
    reflectivity,
    tiff_pages,
    topcon_bytes,
    vol_bytes,
)

GRAY = np.random.default_rng(0).integers(0, 256, (3, 40, 64)).astype(np.uint8)
CASES = int(os.environ.get("OCTDINO_FUZZ_CASES", "400"))
NUMBERS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\1\0")


def intact(folder: Path) -> dict[str, bytes]:
    """One file of each format, by name."""
    found = {
        "a.vol": vol_bytes(reflectivity()), "a.e2e": e2e_bytes(np.full((3, 16, 16), 50_000, np.uint16)),
        "a.fda": topcon_bytes(GRAY), "a.fds": topcon_bytes(GRAY.astype(np.uint16), compressed=False),
    }  # fmt: skip
    found["a.tif"] = tiff_pages(folder / "x.tif", GRAY).read_bytes()
    found["a.xml"] = heyex_files(folder, GRAY, "a.xml").read_bytes()
    found["plain.dcm"] = write_dicom(folder / "x.dcm", GRAY).read_bytes()
    found["rle.dcm"] = write_rle(folder / "x.dcm", GRAY).read_bytes()
    for syntax in ("JPEGLosslessProcess14_1", "JPEG2000Lossless", "JPEGLSLossless", "JPEGBaselineProcess1"):
        found[f"{syntax}.dcm"] = write_compressed(folder / "x.dcm", GRAY, syntax).read_bytes()
    return found


def damage(content: bytearray, draw: random.Random) -> None:
    """Change, remove or insert some bytes, half of the time in the header."""
    place = draw.randrange(len(content)) if draw.random() < 0.5 else min(draw.randrange(2600), len(content) - 1)
    kind = draw.random()
    if kind < 0.5:
        content[place] = draw.choice([0, 255, 127, 128, draw.randrange(256)])
    elif kind < 0.7:
        content[place : place + 4] = draw.choice(NUMBERS)
    elif kind < 0.85:
        del content[place : place + draw.choice([1, 4, 100, 2000])]
    else:
        content[place:place] = bytes(draw.choice([1, 4, 100]))


def read_damaged(folder: Path, cases: int) -> Counter[str]:
    """Read `cases` damaged files; return how many were opened, refused, and how many frames were read and refused."""
    import resource

    files, draw = intact(folder), random.Random(0)
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    found = Counter[str]()
    for _ in range(cases):
        name = draw.choice(sorted(files))
        content = bytearray(files[name])
        for _ in range(draw.choice([1, 1, 2, 5, 20])):
            if len(content) > 10:
                damage(content, draw)
        (folder / name).write_bytes(content)
        try:
            volume = open_volume(folder / name)
            found["opened"] += 1
            for index in range(len(volume.frames)):
                found["frames"] += 1
                volume.read(index)
        except FileNotFoundError:
            found["missing"] += 1  # a damaged name in an XML
        except ImageError as error:
            found["refused"] += 1
            check_message(str(error).casefold())
    return found


def check_message(said: str) -> None:
    assert "\n" not in said
    assert not [secret for secret in (FIRST, LAST, NUMBER) if secret.casefold() in said], said


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    code = f"import json\nfrom pathlib import Path\nfrom {__name__} import read_damaged\n"
    code += f"print(json.dumps(read_damaged(Path({str(tmp_path)!r}), {CASES})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=60 + CASES / 10,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["opened"] > CASES / 5
    assert counts["refused"] > CASES / 5
