"""The ONNX file computes in onnxruntime what octdino computes, at any batch size, and says what it is."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image

from octdino.data.cohort_reader import read_cohort
from octdino.errors import UserError
from octdino.inference.export import export
from octdino.inference.export_graph import Calibrated, Distance, KnnHead, resize_matrix
from octdino.inference.scan_model import load_scan_model
from octdino.stats.calibration import at_temperature, probabilities
from octdino.stats.feature_density import fit_density
from octdino.stats.neighbors import knn_scores

from .model_folders import LABELS, VIT, Recipe, smooth_scans, write_model_folder

RECIPES = {
    "cnn, layers, resized": Recipe(readout="layers", stored=(48, 40)),
    "cnn, mlp, exclusive": Recipe(kind="mlp", readout="layers", exclusive=True),
    "cnn, knn": Recipe(kind="knn", temperature=0.5),
    "cnn, knn, exclusive, RGB, enlarged": Recipe(kind="knn", exclusive=True, channels=3, stored=(24, 20)),
    "vit, layers": Recipe(model=VIT, readout="layers", temperature=None),
    "vit, pooled, exclusive, resized": Recipe(model=VIT, exclusive=True, stored=(40, 48)),
}


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_onnxruntime_gives_the_outputs_of_octdino(recipe, tmp_path):
    folder = write_model_folder(tmp_path / "model", recipe)
    export(folder, "onnx", tmp_path / "out")
    session = session_of(tmp_path / "out" / "model.onnx")
    scans = smooth_scans(21, recipe.channels, recipe.stored, seed=2)
    expected = load_scan_model(folder).outputs(scans)
    assert np.ptp(expected.probabilities, axis=0).max() > 0.05
    for batch in (1, 4, 21):
        found = session.run(None, {"scans": scans[:batch]})
        np.testing.assert_allclose(found[0], expected.probabilities[:batch], atol=1e-4)
        np.testing.assert_allclose(found[1], expected.embeddings[:batch], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[2], expected.out_of_distribution[:batch], rtol=1e-4)


def test_onnxruntime_gives_the_predictions_of_the_run(run, model, tmp_path):
    """Of a trained network, against predictions.csv, which the classify stage wrote."""
    export(model, "onnx", tmp_path / "out")
    table = pd.read_csv(run / "classify" / "dino-linear" / "b" / "f1" / "fold0-seed0" / "predictions.csv")
    cohort = read_cohort(run / "cohort" / "scans.h5")
    rows = np.flatnonzero(cohort.manifest["scan_id"].isin(table["scan_id"]))
    found = session_of(tmp_path / "out" / "model.onnx").run(["probabilities"], {"scans": cohort.images(rows)})[0]
    temperature = json.loads((model / "model.json").read_text())["temperature"]
    expected = at_temperature(table[["prob:square", "prob:stripes"]].to_numpy(), temperature, exclusive=False)
    assert cohort.manifest["scan_id"].iloc[rows].tolist() == table["scan_id"].tolist()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_file_is_valid_and_says_what_it_is_without_paths_of_this_machine(tmp_path):
    folder = write_model_folder(tmp_path / "model", Recipe(stored=(48, 40)))
    export(folder, "onnx", tmp_path / "out")
    path = tmp_path / "out" / "model.onnx"
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded, full_check=True)
    assert [(each.domain, each.version) for each in loaded.opset_import if each.domain in ("", "ai.onnx")] == [("", 18)]
    shape = loaded.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in shape] == ["N", 1, 48, 40]
    assert loaded.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    data = path.read_bytes()
    assert str(tmp_path).encode() not in data
    assert b".py" not in data
    said = session_of(path).get_modelmeta().custom_metadata_map
    assert json.loads(said["labels"]) == LABELS
    assert json.loads(said["exclusive"]) is False
    expected = dict(zip(LABELS, load_scan_model(folder).thresholds(), strict=True))
    assert json.loads(said["thresholds"]) == expected | {LABELS[2]: None}
    assert json.loads(said["input"])["image"]["size"] == [48, 40]
    assert said["intended_use"] == "For tests."


def test_an_export_with_other_outputs_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    folder = write_model_folder(tmp_path / "model", Recipe())
    monkeypatch.setattr(Calibrated, "forward", lambda self, logits: logits.sigmoid())  # without the temperature
    with pytest.raises(UserError, match=r"resnet18 in onnxruntime: probabilities of 1 scans differ by 0\.\d+"):
        export(folder, "onnx", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_without_onnxruntime_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime.*octdino\[onnx\]"):
        export(tmp_path / "model", "onnx", tmp_path / "out")


@pytest.mark.parametrize("size", [(48, 40), (20, 32), (32, 100)])
def test_resize_by_matrices_is_pillows_antialiased_bilinear(size):
    image = np.random.default_rng(0).random(size, dtype=np.float32)
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    found = resize_matrix(size[0], 32) @ torch.from_numpy(image) @ resize_matrix(size[1], 32).T
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("exclusive", [False, True])
def test_calibration_clips_extreme_logits_as_the_run_does(exclusive):
    logits = torch.tensor([[-40.0, 0.5, 40.0], [15.0, 14.0, -3.0]])
    expected = at_temperature(probabilities(logits.double().numpy(), exclusive), 12.0, exclusive)
    np.testing.assert_allclose(Calibrated(12.0, exclusive)(logits).numpy(), expected, atol=1e-6)


def test_neighbors_with_missing_labels_do_not_vote():
    rng = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40, 8, generator=rng), torch.randn(9, 8, generator=rng)
    labels = torch.randint(0, 2, (40, 2), generator=rng).float()
    labels[::3, 0] = torch.nan
    labels[:, 1] = torch.nan  # no vote at all
    other, own = torch.full((9,), -1), torch.zeros(40, dtype=torch.int64)
    expected = torch.from_numpy(knn_scores(*(x.numpy() for x in (queries, bank, labels, other, own)), k=7))
    found = KnnHead({"bank": bank, "labels": labels}, 7, exclusive=False)(queries).sigmoid()
    torch.testing.assert_close(found, expected.clamp(1e-6, 1 - 1e-6), atol=1e-5, rtol=0)
    assert (found[:, 1] == 0.5).all()


@pytest.mark.parametrize(("mean", "spread", "rest"), [(0.0, 50.0, 1e-1), (3.0, 1e-5, 1e-5)])
def test_distance_in_float32_holds_where_few_directions_or_small_spreads_dominate(mean, spread, rest):
    rng = np.random.default_rng(0)
    features = (
        mean + spread * rng.normal(size=(400, 3)) @ rng.normal(size=(3, 200)) + rest * rng.normal(size=(400, 200))
    )
    features = features.astype(np.float32)
    density = fit_density(features)
    expected = density.distances(features[:50]) / 7.0
    found = Distance(density, 7.0)(torch.from_numpy(features[:50])).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
