"""octdino predict: tables, quarantine, resume, ensembles, overlays and gallery."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino.cli import main
from octdino.errors import StoppedEarly, UserError
from octdino.inference import predict as module
from octdino.inference.predict import PredictOptions, predict
from octdino.stats.calibration import at_temperature


def expected_of(run, model):
    """Calibrated probabilities of predictions.csv by file name, an independent way to the same numbers."""
    table = pd.read_csv(run / "classify" / "dino-linear" / "b" / "f1" / "fold0-seed0" / "predictions.csv")
    temperature = json.loads((model / "model.json").read_text())["temperature"]
    raw = table[["prob:square", "prob:stripes"]].to_numpy()
    paths = table["scan_id"].str.replace("-", "/") + ".png"
    return dict(zip(paths, at_temperature(raw, temperature, exclusive=False), strict=True))


def wide(table, folder):
    names = [os.path.relpath(file, folder) for file in table["file"]]
    return table.assign(name=names).pivot_table(index="name", columns="label", values="probability")


def test_files_get_the_probabilities_of_predictions_csv(run, model, tmp_path):
    files = run.parent / "files"
    assert main(["predict", str(model), str(files), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(table) == 2 * 120
    found = wide(table, files)
    for name, probabilities in expected_of(run, model).items():
        np.testing.assert_allclose(found.loc[name, ["square", "stripes"]].to_numpy(float), probabilities, atol=1e-6)
    assert (table["call"] == (table["probability"] >= table["threshold"])).all()
    assert (table["flagged"] == (table["out_of_distribution"] > 1)).all()
    assert pd.read_csv(tmp_path / "out" / "quarantine.csv").empty
    assert not (tmp_path / "out" / "state").exists()
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert page.count("<article") == 60
    assert "http" not in page.replace("http-equiv", "")


def test_store_gives_the_same_numbers_as_its_files(run, model, tmp_path):
    predict([model], [str(run / "cohort" / "scans.h5")], tmp_path / "store", PredictOptions(format="parquet"))
    predict([model], [str(run.parent / "files")], tmp_path / "files", PredictOptions(gallery=0))
    store, files = (
        pd.read_parquet(tmp_path / "store" / "predictions.parquet"),
        pd.read_csv(tmp_path / "files" / "predictions.csv"),
    )
    left = store.assign(name=store["file"]).pivot_table(index="name", columns="label", values="probability")
    np.testing.assert_allclose(left.to_numpy(), wide(files, run.parent / "files").loc[left.index].to_numpy(), atol=1e-6)
    assert set(store["patient"]) == {f"p{i}" for i in range(20)}
    assert not (tmp_path / "files" / "gallery.html").exists()


def test_bad_files_go_to_the_quarantine_and_the_exit_code_says_so(run, model, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    shutil.copy(run.parent / "files" / "p0" / "0.png", folder / "good.png")
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    Image.new("L", (32, 32)).save(folder / "black.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert main(["predict", str(model), str(folder), "--out", str(tmp_path / "out")]) == 3
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert set(table["file"]) == {str(folder / "good.png")}
    refused = pd.read_csv(tmp_path / "out" / "quarantine.csv").set_index("file")
    reasons = {Path(file).name: reason for file, reason in refused["reason"].items()}
    assert reasons == dict.fromkeys(("empty.png", "text.png", "cut.png"), "unreadable") | {"black.png": "constant"}


def test_only_bad_files_give_an_empty_table(model, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "a.png").touch()
    counts = predict([model], [str(tmp_path / "a.png")], tmp_path / "out", PredictOptions())
    assert vars(counts) == {"predicted": 0, "flagged": 0, "refused": 1}
    assert pd.read_csv(tmp_path / "out" / "predictions.csv").empty
    assert not (tmp_path / "out" / "gallery.html").exists()
    assert "gallery.html" not in caplog.text


@pytest.mark.parametrize("most", [0, 2])
def test_gallery_is_named_only_if_it_was_written(run, model, tmp_path, caplog, most):
    caplog.set_level("INFO")
    predict([model], [str(run.parent / "files" / "p0")], tmp_path / "out", PredictOptions(gallery=most))
    page = tmp_path / "out" / "gallery.html"
    assert page.exists() == bool(most)
    assert (f"the scans with their predictions: {page}" in caplog.text) == bool(most)


def test_table_and_pattern_name_files_once_with_patient_and_eye(run, model, tmp_path):
    files = run.parent / "files"
    table = tmp_path / "list.csv"
    rows = [
        {"path": os.path.relpath(files / f"p{i}" / "0.png", tmp_path), "patient": f"x{i}", "eye": "OD"} for i in (3, 1)
    ]
    pd.DataFrame(rows).to_csv(table, index=False)
    inputs = [str(table), str(files / "p1" / "*.png"), str(files / "p3" / "0.png")]
    predict([model], inputs, tmp_path / "out", PredictOptions())
    found = pd.read_csv(tmp_path / "out" / "predictions.csv").drop_duplicates("scan")
    names = [os.path.relpath(os.path.realpath(file), files) for file in found["file"]]
    assert names == ["p3/0.png", "p1/0.png", *(f"p1/{scan}.png" for scan in range(1, 6))]
    assert found["patient"].tolist()[:2] == ["x3", "x1"]
    eyes = pd.read_csv(tmp_path / "out" / "eyes.csv")
    own = pd.read_csv(tmp_path / "out" / "predictions.csv").query("patient == 'x3' and label == 'square'")
    row = eyes[(eyes["patient"] == "x3") & (eyes["label"] == "square")].iloc[0]
    assert row["n_scans"] == 1
    assert row["mean_probability"] == pytest.approx(own["probability"].iloc[0])


def test_a_stopped_run_resumes_and_gives_the_same_table(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr("octdino.inference.scan_inputs.BLOCK", 16)
    inputs = [str(run.parent / "files")]
    predict([model], inputs, tmp_path / "whole", PredictOptions(gallery=0))
    decoded = []
    parts = module.predict_part

    def stopping(*args):
        decoded.append(len(args[1].scans))
        if len(decoded) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return parts(*args)

    monkeypatch.setattr(module, "predict_part", stopping)
    with pytest.raises(StoppedEarly, match="SIGTERM"):
        predict([model], inputs, tmp_path / "out", PredictOptions(gallery=0))
    assert not (tmp_path / "out" / "predictions.csv").exists()
    predict([model], inputs, tmp_path / "out", PredictOptions(gallery=0))
    assert sum(decoded) == 120
    whole, resumed = (tmp_path / name / "predictions.csv" for name in ("whole", "out"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_changed_files_are_predicted_again(run, model, tmp_path, monkeypatch):
    folder = shutil.copytree(run.parent / "files" / "p0", tmp_path / "scans")
    monkeypatch.setattr("octdino.inference.scan_inputs.BLOCK", 2)
    parts = module.predict_part
    monkeypatch.setattr(module, "predict_part", lambda *args: (os.kill(os.getpid(), signal.SIGTERM), parts(*args))[1])
    with pytest.raises(StoppedEarly):
        predict([model], [str(folder)], tmp_path / "out", PredictOptions(gallery=0))
    monkeypatch.setattr(module, "predict_part", parts)
    shutil.copy(run.parent / "files" / "p5" / "1.png", folder / "0.png")
    predict([model], [str(folder)], tmp_path / "out", PredictOptions(gallery=0))
    predict([model], [str(folder)], tmp_path / "fresh", PredictOptions(gallery=0))
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == (tmp_path / "fresh" / "predictions.csv").read_bytes()


def test_overlays_are_made_of_called_labels_only(run, model, tmp_path):
    predict([model], [str(run.parent / "files" / "p0")], tmp_path / "out", PredictOptions(overlays=True))
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    called = table[table["call"]]
    expected = {f"{scan:06d}-{label}.png" for scan, label in zip(called["scan"], called["label"], strict=True)}
    assert {path.name for path in (tmp_path / "out" / "overlays").iterdir()} == expected
    with Image.open(tmp_path / "out" / "overlays" / sorted(expected)[0]) as picture:
        assert picture.size == (32, 32)
        assert picture.mode == "RGB"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nothing"], "nothing: no such file or folder"),
        (["no*.png"], r"no\*.png: no file of this pattern"),
        (["{store}", "{files}"], "a store with other inputs"),
        (["{table}"], "no column path"),
        (["{empty}"], "no scan; expected"),
    ],
)
def test_inputs_that_name_nothing_are_refused(inputs, message, run, model, tmp_path):
    (tmp_path / "t.csv").write_text("patient,label\n1,0\n")
    (tmp_path / "empty").mkdir()
    places = {"store": run / "cohort" / "scans.h5", "files": run.parent / "files", "table": tmp_path / "t.csv"}
    texts = [text.format(**places, empty=tmp_path / "empty") for text in inputs]
    with pytest.raises(UserError, match=message):
        predict([model], texts, tmp_path / "out", PredictOptions())
    assert not (tmp_path / "out").exists()


def test_two_commands_never_write_to_one_folder(run, model, tmp_path, programs):
    command = [programs / "octdino", "predict", str(model), str(run.parent / "files"), "--out"]
    out = tmp_path / "out"
    with module.PartFiles(out, {}).locked():
        done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("another command writes its predictions there")
    assert subprocess.run([*command, str(out)], capture_output=True, check=False).returncode == 0


def test_labels_become_different_file_names():
    labels = ["Atrophy / thinning", "Fluid (IRF)", "fluid  IRF", "../x", "DRT/ME", "DRT?ME"]
    names = module.file_names(labels)
    assert names == ["Atrophy_thinning", "Fluid_IRF_", "fluid_IRF", ".._x", "DRT_ME-5", "DRT_ME-6"]


def test_an_earlier_commands_files_do_not_stay_beside_the_new_ones(run, model, tmp_path):
    out = tmp_path / "out"
    predict([model], [str(run.parent / "files")], out, PredictOptions(overlays=True))
    predict([model], [str(run.parent / "files" / "p0")], out, PredictOptions(overlays=True, format="parquet"))
    assert not (out / "predictions.csv").exists()
    table = pd.read_parquet(out / "predictions.parquet")
    assert len(list((out / "overlays").iterdir())) == table["call"].sum()
