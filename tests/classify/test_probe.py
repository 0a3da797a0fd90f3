"""Arms on frozen features: trained on the embeddings that they are given, and on no others."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from octdino.classify.labeled_scans import read_labeled
from octdino.classify.linear import fit_linear
from octdino.classify.mlp import fit_mlp
from octdino.classify.train_arm import classify
from octdino.data.embeddings import read_embeddings
from octdino.data.predictions import read_predictions
from octdino.errors import UserError
from octdino.models.initial_weights import start_backbone
from octdino.models.input_batches import input_batches
from octdino.models.mlp import mlp_logits
from octdino.models.readouts import extract_features
from octdino.stats.calibration import probabilities
from octdino.stats.neighbors import knn_scores
from tests.classify.test_classify import SETTINGS
from tests.embedded import write_embedded
from tests.small import TINY_RESNET, write_small_cohort


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=24)


@pytest.fixture(scope="module")
def embeddings(store, tmp_path_factory):
    return write_embedded(
        "scratch", 32, store=store, backbone="b", model=TINY_RESNET, out=tmp_path_factory.mktemp("embed")
    )


def run(arm, store, embeddings, out, backbone="b", fold=0, **more):
    named = {"fraction": 1.0, "seed": 0, "model": TINY_RESNET, **more}
    classify(arm, SETTINGS, store=store, backbone=backbone, embeddings=embeddings, fold=fold, out=out, **named)
    return read_predictions(out)


def knn_of_best_validation(data, queries, gallery, labels, patient):
    """The first number of neighbors whose mean AUROC over the labels is largest among validation scans."""
    train, rows, scores = data.rows("train"), data.rows("val", "test"), []
    val = np.isin(rows, data.rows("val"))
    for k in SETTINGS.knn:
        votes = knn_scores(queries, gallery, labels, patient[rows], patient[train], k=k)[val]
        truth = data.truth[rows][val]
        known = [~np.isnan(column) for column in truth.T]
        scores.append(np.mean([roc_auc_score(truth[n, i], votes[n, i]) for i, n in enumerate(known)]))
    return SETTINGS.knn[int(np.argmax(scores))]


@pytest.mark.parametrize("mode", ["linear", "knn", "mlp"])
def test_predictions_are_those_of_features_computed_directly(mode, store, embeddings, tmp_path):
    """Of the labeled scans alone, in batches of their own; as arms computed them before there were embeddings."""
    data = read_labeled(store, 1.0, 0)
    network, _ = start_backbone("scratch", TINY_RESNET, 1, 32, pretrained=None, seed=0)

    def features(rows):
        batches = input_batches(data.images, data.mean, data.std, 32, torch.device("cpu"), rows)
        return extract_features(network, batches, "pooled" if mode == "knn" else "layers").double().numpy()

    train, val, rows = data.rows("train"), data.rows("val"), data.rows("val", "test")
    known = features(train), data.truth[train], features(val), data.truth[val], SETTINGS
    if mode == "linear":
        (weight, bias), _ = fit_linear(*known)
        expected = probabilities(features(rows) @ weight.T + bias, exclusive=False)
    elif mode == "mlp":
        expected = probabilities(mlp_logits(fit_mlp(*known, False, 0)[0], features(rows)), exclusive=False)
    else:
        patient = data.manifest["patient"].astype("category").cat.codes.to_numpy("int64", copy=True)
        arrays = [x.astype(np.float32) for x in (features(rows), features(train), data.truth[train])]
        k = knn_of_best_validation(data, *arrays, patient)
        expected = knn_scores(*arrays, patient[rows], patient[train], k=k)
    found = run(f"scratch-{mode}", store, embeddings, tmp_path)
    np.testing.assert_allclose(found.probabilities(), expected, rtol=1e-3, atol=1e-4)


def test_metadata_tell_what_the_embeddings_were_made_of(store, embeddings, tmp_path):
    metadata = run("scratch-linear", store, embeddings, tmp_path).metadata.plain()
    attributes = read_embeddings(embeddings, read_labeled(store, 1.0, 0).cohort).attributes
    assert metadata["input"]["size"] == 32
    assert (metadata["input"]["mean"], metadata["input"]["std"]) == (attributes.mean, attributes.std)
    assert metadata["model"] == TINY_RESNET.model_dump(mode="json")
    assert metadata["embeddings"] == {"readout": "layers", "seed": 0, "octdino": attributes.octdino}
    assert "pretrained" in metadata


def test_no_scan_is_read(store, embeddings, tmp_path, monkeypatch):
    monkeypatch.setattr("octdino.data.cohort_reader.read_images", lambda *_: pytest.fail("reads images"))
    run("scratch-linear", store, embeddings, tmp_path)


@pytest.mark.parametrize(
    ("arm", "more", "line"),
    [
        ("dino-linear", {}, "of init scratch, expected init dino"),
        ("scratch-knn", {"backbone": "c"}, "backbone b, expected backbone c"),
        ("scratch-mlp", {"embeddings": None}, "--embeddings: missing; scratch-mlp reads .* `octdino embed scratch`"),
        ("scratch-linear", {"pretrained": "run"}, "--pretrained: scratch-linear reads --embeddings and no backbone"),
        ("scratch-finetune", {}, "--embeddings: scratch-finetune trains its backbone; expected only --pretrained"),
    ],
)
def test_mistakes_are_one_line(arm, more, line, store, embeddings, tmp_path):
    with pytest.raises(UserError, match=line):
        run(arm, store, **{"embeddings": embeddings, "out": tmp_path / "out", **more})
    assert not (tmp_path / "out").exists()


def test_embeddings_of_another_store_are_refused(embeddings, tmp_path):
    other = write_small_cohort(tmp_path / "cohort", patients=24, seed=1)
    with pytest.raises(UserError, match="features of another store"):
        run("scratch-linear", other, embeddings, tmp_path / "out")
