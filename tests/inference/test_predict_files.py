"""octdino predict on clinical files, and on a folder with every kind of broken file: pixels, privacy, memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import octdino
from octdino.cli import main
from tests.scans.test_hostile_images import png
from tests.scans.volumes import written_dicom, written_volumes
from tests.scans.volumes.test_broken_files import BROKEN, write_broken
from tests.scans.volumes.written_dicom import write_compressed, write_dicom
from tests.scans.volumes.written_volumes import e2e_bytes, heyex_files, reflectivity, vol_bytes, zeiss_file

GRAY = np.random.default_rng(3).integers(0, 200, (3, 40, 48)).astype(np.uint8)
SECRETS = (written_dicom.NAME, written_dicom.NUMBER, *written_dicom.NAME.split("^"), written_dicom.BIRTH,
           written_volumes.FIRST, written_volumes.LAST, written_volumes.NUMBER)  # fmt: skip

IMAGES: dict[str, Callable[[Path], object]] = {
    "nan.tif": lambda p: Image.fromarray(np.full((30, 30), np.nan, np.float32)).save(p),
    "range.tif": lambda p: Image.fromarray(np.linspace(-5, 5, 900, dtype=np.float32).reshape(30, 30)).save(p),
    "animated.png": lambda p: Image.fromarray(GRAY[0]).save(p, save_all=True, append_images=[Image.fromarray(GRAY[1])]),
    "bomb.png": lambda p: p.write_bytes(png(100_000, 100_000)),
    "empty.png": lambda p: p.touch(),
    "text.jpg": lambda p: p.write_text("no image"),
    "cut.jpg": lambda p: (Image.fromarray(GRAY[0]).save(p), p.write_bytes(p.read_bytes()[:300])),
    "black.bmp": lambda p: Image.new("L", (40, 40)).save(p),
}
FINE: dict[str, Callable[[Path], object]] = {
    "palette.png": lambda p: Image.fromarray(GRAY[0]).convert("P").save(p),
    "cmyk.jpg": lambda p: Image.fromarray(GRAY[0]).convert("CMYK").save(p),
    "alpha.png": lambda p: Image.fromarray(GRAY[0]).convert("RGBA").save(p),
    "deep.tif": lambda p: Image.fromarray(GRAY[0].astype(np.uint16) * 257).save(p),
    "float.tif": lambda p: Image.fromarray(GRAY[0].astype(np.float32) / 255).save(p),
}


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """One patient's scans as four kinds of file, with the patient's name in each header; and a stranger's cube."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    (folder / "a.vol").write_bytes(vol_bytes(reflectivity()))
    write_dicom(folder / "b.dcm", GRAY)
    write_compressed(folder / "c.dcm", GRAY, "JPEG2000Lossless")
    heyex_files(folder / "xml", GRAY, "d.xml")
    (folder / "e.e2e").write_bytes(e2e_bytes(np.arange(50_000, 51_800, dtype=np.uint16).reshape(2, 30, 30)))
    zeiss_file(folder, np.random.default_rng(0).integers(0, 200, (3, 1024, 20)).astype(np.uint8))
    return folder


def test_every_b_scan_of_a_volume_is_predicted_and_no_fundus(clinic, model, tmp_path):
    assert main(["predict", str(model), str(clinic), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    once = table.drop_duplicates("scan")
    frames = once.groupby("file")["frame"].apply(list)
    names = {Path(file).name: numbers for file, numbers in frames.items()}
    cube = next(name for name in names if name.endswith(".img"))
    assert names == {
        "a.vol": [0, 1, 2], "b.dcm": [0, 1, 2], "c.dcm": [0, 1, 2], "d.xml": [0, 1, 2], "e.e2e": [0, 1],
        cube: [0, 1, 2],
    }  # fmt: skip
    by_file = {Path(file).name: own for file, own in table.groupby("file")}
    stacked = octdino.load(model).probabilities(list(GRAY))  # the arrays that were written
    for name in ("b.dcm", "c.dcm", "d.xml"):
        np.testing.assert_allclose(by_file[name]["probability"].to_numpy().reshape(3, 2), stacked, atol=1e-6)
    volumes = pd.read_csv(tmp_path / "out" / "volumes.csv")
    assert set(volumes["n_scans"]) == {2, 3}
    eyes = pd.read_csv(tmp_path / "out" / "eyes.csv")
    assert eyes[["patient", "eye"]].drop_duplicates()["patient"].str.fullmatch(r"patient-\d{4}").all()


def test_one_b_scan_has_an_address(clinic, model):
    loaded = octdino.load(model)
    whole = loaded.probabilities(clinic / "b.dcm")
    np.testing.assert_allclose(loaded.probabilities(f"{clinic}/b.dcm#1"), whole[1:2], atol=1e-6)


def test_no_identity_of_a_header_is_written_or_logged(clinic, model, tmp_path, capfd):
    options = ["--workers", "1", "--overlays"]
    assert main(["predict", str(model), str(clinic), "--out", str(tmp_path / "out"), *options]) == 0
    assert main(["embed", str(model), str(clinic), "--out", str(tmp_path / "out")]) == 0
    gallery = ["--gallery", str(tmp_path / "out" / "embeddings.h5"), "--workers", "1"]
    assert main(["neighbors", str(model), str(clinic), *gallery, "--out", str(tmp_path / "out")]) == 0
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    said = capfd.readouterr()
    assert len(written) > 8
    for content in [*written, said.out.encode(), said.err.encode()]:
        for secret in SECRETS:
            assert secret.casefold().encode() not in content.lower()


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder with all kinds of broken file, and some odd ones that can be read."""
    root = write_broken(tmp_path_factory.mktemp("broken"))
    for name, write in (IMAGES | FINE).items():
        write(root / name)
    return root


def test_broken_files_cost_one_row_each_in_bounded_memory(broken, model, tmp_path):
    code = (
        "import sys, json, re, pathlib\nfrom octdino.cli import main\n"
        "code = main(sys.argv[1:])\n"  # not getrusage, which includes the peak of the process that started this one
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1]\n"
        "print(json.dumps([code, int(peak)]))"
    )
    command = ["predict", str(model), str(broken), "--out", str(tmp_path / "out"), "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    exit_code, kilobytes = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == 3
    assert kilobytes < 2 * 2**20
    quarantine = pd.read_csv(tmp_path / "out" / "quarantine.csv")
    refused = {Path(file).name for file in quarantine["file"]}
    predicted = {Path(file).name for file in pd.read_csv(tmp_path / "out" / "predictions.csv")["file"]}
    assert set(IMAGES) <= refused
    assert set(FINE) <= predicted
    named = refused | predicted
    assert {name for name in BROKEN if name not in named} <= {"none.xml", "bomb.xml", "external.xml"}  # no HEYEX file
    assert quarantine["detail"].str.len().max() < 300
