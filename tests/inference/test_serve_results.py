"""What the local page returns for uploaded files: the same numbers as the model, pictures, overlays, neighbors."""

import base64
import io
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import requests
from PIL import Image

from octdino.data.cohort_reader import read_cohort
from octdino.inference.ensemble import load_ensemble
from octdino.inference.explanations import class_maps, overlay
from octdino.inference.model_writer import write_model
from octdino.inference.neighbors import Gallery
from octdino.inference.predict import PredictOptions, predict
from octdino.inference.scan_embeddings import embed_scans
from octdino.inference.served_results import GalleryNeighbors, layer, summary_of
from octdino.inference.trained_runs import Wanted, choose, read_runs
from tests.scans.volumes.written_dicom import write_dicom
from tests.scans.volumes.written_volumes import e2e_bytes, reflectivity, topcon_bytes, vol_bytes, zeiss_file

from .served import computation_of, pages, send, serving


@pytest.fixture(scope="module")
def address(model):
    with serving(computation_of(model)) as address:
        yield address


def stored(run, count):
    """Files of some scans, and the pixels that the store has of them."""
    cohort = read_cohort(run / "cohort" / "scans.h5")
    names = cohort.manifest["path"].iloc[:count]
    files = [(name.replace("/", "-"), (run.parent / "files" / name).read_bytes()) for name in names]
    return files, cohort.images(np.arange(count))


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_uploaded_files_get_the_outputs_of_the_model(run, model, address):
    files, images = stored(run, 5)
    expected = load_ensemble([model]).outputs(images)
    answer = send(address, *files, query="").json()
    assert answer["labels"] == ["square", "stripes"]
    assert answer["thresholds"] == pytest.approx(load_ensemble([model]).thresholds().tolist())
    assert [one["file"] for one in answer["files"]] == [name for name, _ in files]
    for row, one in enumerate(answer["files"]):
        (scan,) = one["scans"]
        np.testing.assert_allclose(scan["probabilities"], expected.probabilities[row], atol=1e-6)
        assert scan["calls"] == expected.calls[row].tolist()
        assert scan["out_of_distribution"] == pytest.approx(expected.out_of_distribution[row], rel=1e-4)
        assert scan["flagged"] == (scan["out_of_distribution"] > 1)
        assert scan["frame"] is None
        assert scan["neighbors"] is None
        shown = np.asarray(decoded(scan["picture"]), float)
        assert np.abs(shown - images[row, 0]).mean() < 8  # JPEG of noise; other scans differ by 20
        assert len(scan["overlays"]) == 2


def test_two_models_answer_with_their_mean(run, model, tmp_path):
    write_model(run, choose(read_runs(run), Wanted(arm="scratch-finetune")), tmp_path / "other")
    files, images = stored(run, 3)
    each = [load_ensemble([folder]).outputs(images).probabilities for folder in (model, tmp_path / "other")]
    with serving(computation_of(model, tmp_path / "other")) as address:
        answer = send(address, *files).json()
    found = [one["scans"][0]["probabilities"] for one in answer["files"]]
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, atol=1e-6)


def test_of_exclusive_labels_the_most_probable_one_is_called(exclusive_run, tmp_path):
    write_model(exclusive_run, choose(read_runs(exclusive_run), Wanted(arm="dino-linear")), tmp_path / "model")
    files, _ = stored(exclusive_run, 4)
    with serving(computation_of(tmp_path / "model")) as address:
        answer = send(address, *files).json()
    assert answer["exclusive"]
    assert answer["thresholds"] == [None, None]
    for one in answer["files"]:
        scan = one["scans"][0]
        assert sum(scan["probabilities"]) == pytest.approx(1)
        assert scan["calls"] == [value == max(scan["probabilities"]) for value in scan["probabilities"]]


def test_a_model_without_class_maps_is_served_without_them(run, tmp_path):
    write_model(run, choose(read_runs(run), Wanted(arm="dino-knn")), tmp_path / "model")
    with serving(computation_of(tmp_path / "model")) as address:
        assert "has no class maps" in requests.get(address, timeout=10).text
        assert requests.get(f"{address}/model", timeout=10).json()["class_maps"] is False
        scan = send(address, *stored(run, 1)[0], query="").json()["files"][0]["scans"][0]
    assert scan["overlays"] is None


def test_a_layer_over_its_scan_looks_as_the_overlay(run, model):
    _, images = stored(run, 1)
    scan_map = class_maps(load_ensemble([model]).first, images)[0, 0]
    over = decoded(layer(scan_map)).convert("RGBA").resize((32, 32), Image.Resampling.BILINEAR)
    base = Image.fromarray(images[0, 0]).convert("RGBA")
    composed = np.asarray(Image.alpha_composite(base, over).convert("RGB"), float)
    expected = np.asarray(overlay(images[0], scan_map), float)
    assert np.abs(composed - expected).mean() < 3
    assert np.abs(composed - np.asarray(base.convert("RGB"), float)).mean() > 8


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(60_001))), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_bad_files_are_refused_with_a_reason_and_the_others_are_computed(run, address):
    (good,) = stored(run, 1)[0]
    black = io.BytesIO()
    Image.new("L", (32, 32)).save(black, "PNG")
    files = [
        ("cut.png", good[1][: len(good[1]) // 2]), ("bomb.png", bomb()), ("empty.png", b""), ("text.png", b"no image"),
        ("black.png", black.getvalue()), ("cut.tif", b"II*\0" + bytes(20)), ("report.xml", b"<HEDX/>"), good,
    ]  # fmt: skip
    response = send(address, *files)
    assert response.status_code == 200
    refused = {one["file"]: one["refused"] for one in response.json()["files"]}
    assert refused.pop(good[0]) == []
    assert {name: found[0]["reason"] for name, found in refused.items()} == {
        **dict.fromkeys(("cut.png", "bomb.png", "empty.png", "text.png", "cut.tif", "report.xml"), "unreadable"),
        "black.png": "constant",
    }
    assert "more than 33,554,432 pixels" in refused["bomb.png"][0]["detail"]
    assert "octdino predict" in refused["report.xml"][0]["detail"]
    assert len(response.json()["files"][-1]["scans"]) == 1


def test_a_volume_is_computed_b_scan_by_b_scan_with_a_summary(run, model, address):
    _, images = stored(run, 20)
    expected = load_ensemble([model]).outputs(images).probabilities
    (one,) = send(address, ("v.tif", pages(images))).json()["files"]
    assert [scan["frame"] for scan in one["scans"]] == list(range(20))
    found = np.array([scan["probabilities"] for scan in one["scans"]])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    kept = np.array([not scan["flagged"] for scan in one["scans"]])
    for index, row in enumerate(one["summary"]):
        assert row["n_scans"] == 20
        assert row["n_flagged"] == (~kept).sum()
        assert row["highest_probability"] == pytest.approx(expected[kept, index].max())
        assert row["mean_probability"] == pytest.approx(expected[kept, index].mean())
        assert row["highest_frame"] == np.flatnonzero(kept)[expected[kept, index].argmax()]


def test_a_bad_b_scan_of_a_volume_is_refused_and_the_others_are_computed(run, address):
    images = stored(run, 3)[1].copy()
    images[1] = 7
    (one,) = send(address, ("v.tiff", pages(images))).json()["files"]
    assert [scan["frame"] for scan in one["scans"]] == [0, 2]
    assert one["refused"] == [{"frame": 1, "reason": "constant", "detail": "every pixel is 7"}]


def test_a_tiff_of_one_page_is_a_scan(run, address):
    _, images = stored(run, 1)
    (one,) = send(address, ("v.tiff", pages(images))).json()["files"]
    assert [scan["frame"] for scan in one["scans"]] == [None]
    assert one["summary"] is None


def test_a_volume_of_too_many_b_scans_is_refused(address):
    (one,) = send(address, ("v.tif", pages(np.zeros((513, 1, 2, 2), np.uint8)))).json()["files"]
    assert one["refused"][0]["detail"] == "513 B-scans; expected at most 512; use octdino predict"


def test_every_clinical_format_is_read(address, tmp_path):
    eight = np.random.default_rng(0).integers(0, 255, (3, 1024, 32), np.uint8)
    written = [
        tmp_path / "a.VOL", tmp_path / "a.e2e", tmp_path / "a.fda", zeiss_file(tmp_path, eight),
        write_dicom(tmp_path / "1.2.840", eight),
    ]  # fmt: skip
    written[0].write_bytes(vol_bytes(reflectivity()))
    written[1].write_bytes(e2e_bytes(eight[:, :64].astype(np.uint16) * 257))
    written[2].write_bytes(topcon_bytes(eight[:, :64]))
    answer = send(address, *[(path.name, path.read_bytes()) for path in written]).json()
    for one in answer["files"]:
        assert [scan["frame"] for scan in one["scans"]] == [0, 1, 2], one
        assert len(one["summary"]) == 2


def test_real_volumes_give_the_probabilities_of_predict(shared_data, model, address, tmp_path):
    path = shared_data / "oct_formats" / "small.vol"
    predict([model], [str(path)], tmp_path, PredictOptions(gallery=0))
    table = pd.read_csv(tmp_path / "predictions.csv").pivot_table(index="frame", columns="label", values="probability")
    (one,) = send(address, ("eye.VOL", path.read_bytes())).json()["files"]
    assert [scan["frame"] for scan in one["scans"]] == table.index.tolist()
    np.testing.assert_allclose([scan["probabilities"] for scan in one["scans"]], table.to_numpy(), atol=1e-6)


def test_a_summary_without_a_scan_like_the_training_scans_has_no_values():
    scans = [{"frame": 0, "probabilities": [0.9], "calls": [True], "flagged": True}]
    (row,) = summary_of(["square"], scans)
    assert (row["n_scans"], row["n_flagged"], row["n_called"]) == (1, 1, 0)
    assert row["mean_probability"] is row["highest_probability"] is row["highest_frame"] is None


def test_nearest_scans_of_a_gallery_are_shown(run, model, tmp_path):
    files, images = stored(run, 6)
    embed_scans(model, [str(run.parent / "files")], tmp_path, "h5", "float32", 1)
    gallery = Gallery(tmp_path / "embeddings.h5", load_ensemble([model]).first)
    with serving(computation_of(model, neighbors=GalleryNeighbors(gallery))) as address:
        answer = send(address, *files, query="").json()
    for row, one in enumerate(answer["files"]):
        near = one["scans"][0]["neighbors"]
        assert len(near) == 5
        similar = [each["similarity"] for each in near]
        assert similar == sorted(similar, reverse=True)
        assert similar[0] == pytest.approx(1, abs=1e-5)  # the uploaded file is in the gallery
        assert near[0]["caption"] == one["file"].partition("-")[2]
        assert np.abs(np.asarray(decoded(near[0]["picture"]), float) - images[row, 0]).mean() < 8
