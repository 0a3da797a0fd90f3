"""What the local page keeps of an upload, and what its log and its answers say of it."""

import io
import logging
import tempfile
import time

import numpy as np
import pytest

from octdino.inference import uploads, web_app
from octdino.inference.served_results import Progress
from octdino.inference.web_app import MIB
from tests.scans.volumes.written_dicom import write_dicom
from tests.scans.volumes.written_volumes import FIRST, LAST, NUMBER, e2e_bytes

from .served import computation_of, pages, refusal, send, serving


@pytest.fixture(scope="module")
def address(model):
    with serving(computation_of(model)) as address:
        yield address


@pytest.fixture
def scan(run):
    return (run.parent / "files" / "p0" / "0.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/a.png", "a.png"),
        ("C:\\scans\\a.png", "a.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("x" * 300 + ".png", "x" * 80 + "…" + "x" * 15 + ".png"),
        ("..", ".."),
        ("\u200b", "file 3"),
    ],
)
def test_names_of_files_are_shown_without_folders_and_control_characters(name, shown):
    assert uploads.shown_name(name, 3) == shown


def test_an_image_is_never_written_and_a_volume_only_to_a_private_file(address, scan, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []

    def look(path):
        seen.append((path.name, path.parent.stat().st_mode & 0o777, path.read_bytes(), list(tmp_path.iterdir())))
        raise OSError(f"damaged: {path}")

    monkeypatch.setattr(uploads, "open_volume", look)
    assert send(address, ("MUELLER.png", scan)).json()["files"][0]["scans"]
    assert seen == []
    answer = send(
        address, ("../MUELLER_HANS.vol", b"content"), ("M_512x128_cube_z.img", b"cube"), ("M", bytes(128) + b"DICM")
    )
    assert [name for name, *_ in seen] == ["scan.vol", "scan_512x128_cube_z.img", "scan"]
    assert [mode for _, mode, *_ in seen] == [0o700] * 3
    assert [content for _, _, content, _ in seen] == [b"content", b"cube", bytes(128) + b"DICM"]
    assert all("MUELLER" not in str(folders) for *_, folders in seen)
    details = [one["refused"][0]["detail"] for one in answer.json()["files"]]
    assert details == ["damaged: the file"] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_is_removed_when_the_computation_stops_half_way(model, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    upload = uploads.Upload("v.tif", io.BytesIO(pages(np.zeros((40, 1, 4, 4), np.uint8))))

    class LateError(Exception):
        pass

    def stop():
        assert len(list(tmp_path.iterdir())) == 1
        raise LateError

    with pytest.raises(LateError) as kept:  # it refers to all that was open
        computation_of(model).result([upload], False, Progress(stop))
    assert list(tmp_path.iterdir()) == []
    assert kept.value.args == ()


def test_an_upload_of_megabytes_stays_in_memory(model, monkeypatch):
    rolled = []

    def look(self, uploads, pictures, progress):
        rolled.extend(upload.content._rolled for upload in uploads)
        return {"files": []}

    monkeypatch.setattr(web_app.Computation, "result", look)
    with serving(computation_of(model), most_bytes=4 * MIB) as address:
        assert send(address, ("a.png", bytes(3 * MIB)), ("b.png", bytes(MIB))).status_code == 200
    assert rolled == [False, False]


def test_logs_and_answers_have_no_identity(address, scan, caplog, capfd, monkeypatch, tmp_path):
    caplog.set_level(logging.INFO)
    name = "MUELLER_HANS_19501112"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 16, 24), np.uint8)
    e2e = e2e_bytes(pixels.astype(np.uint16) * 257)
    dicom = write_dicom(tmp_path / "a.dcm", pixels).read_bytes()
    files = [(f"{name}.e2e", e2e), (f"{name}2.e2e", e2e[:-1000]), (f"{name}.dcm", dicom), (f"{name}2.dcm", dicom[:400])]
    response = send(address, (f"{name}.png", scan), (f"{name}.tif", b"II*\0"), *files, query="")
    assert [len(one["scans"]) > 0 for one in response.json()["files"]] == [True, False, True, False, True, False]

    def broken(*_):
        raise RuntimeError(f"cannot read {name}")

    monkeypatch.setattr(web_app.Computation, "result", broken)
    failed = send(address, (f"{name}.png", scan))
    assert refusal(failed) == (500, "unexpected RuntimeError; the server continues")
    for _ in range(50):  # it is logged after the answer
        if "unexpected RuntimeError" in caplog.text:
            break
        time.sleep(0.1)
    assert "unexpected RuntimeError" in caplog.text
    assert "6 files, 7 scans, 3 refused" in caplog.text
    logged = caplog.text + "".join(capfd.readouterr())
    assert name not in logged
    for secret in (FIRST, LAST, NUMBER, "7788123", "1931-04-07", "19310407"):
        assert secret.casefold() not in (logged + response.text).casefold()
