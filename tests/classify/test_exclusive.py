"""Labels that exclude each other: one softmax, one answer a scan; and the classifiers on frozen features."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from octdino.classify.linear import fit_linear
from octdino.classify.losses import balance, loss_of
from octdino.classify.mlp import fit_mlp
from octdino.config import AugmentSettings, ClassifySettings
from octdino.data.predictions import read_predictions
from octdino.models.mlp import mlp_logits
from octdino.stats.calibration import probabilities
from octdino.stats.validation_score import validation_score
from tests.embedded import train_arm
from tests.small import TINY_RESNET, write_small_cohort

SETTINGS = ClassifySettings(
    augment=AugmentSettings(global_size=32, global_scale=(0.6, 1.0)), epochs=3, min_steps=80, batch_size=16, lr=3e-3,
    mlp_hidden=32, inverse_regularization=[1.0],
)  # fmt: skip


def blobs(classes, seed=0):
    """Features [150, 4], one-hot labels."""
    x, y = make_blobs(150, 4, centers=classes, random_state=seed, cluster_std=3.0)
    return x, y, np.eye(classes, dtype=np.float32)[y]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_probe_is_the_multinomial_regression(classes):
    x, y, truth = blobs(classes)
    (weight, bias), _ = fit_linear(x, truth, x, truth, SETTINGS, exclusive=True)
    z = (x - x.mean(0)) / (x.std(0) + 1e-6)
    expected = LogisticRegression(C=1.0, max_iter=2000).fit(z, y).predict_proba(z)
    np.testing.assert_allclose(probabilities(x @ weight.T + bias, exclusive=True), expected, atol=2e-3)


def test_a_class_without_a_training_scan_is_never_likeliest():
    x, _, truth = blobs(3)
    some = np.concatenate([truth, np.zeros((len(truth), 1), np.float32)], axis=1)
    (weight, bias), _ = fit_linear(x, some, x, some, SETTINGS, exclusive=True)
    found = probabilities(x @ weight.T + bias, exclusive=True)
    assert (found.argmax(1) < 3).all()
    np.testing.assert_allclose(found.sum(1), 1)


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_perceptron_separates_what_no_line_does(exclusive):
    """Exclusive or, in the first two of six features."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (600, 6)) * 5 + 2
    odd = ((x[:, 0] > 2) ^ (x[:, 1] > 2)).astype(int)
    truth = np.eye(2, dtype=np.float32)[odd]
    train, rest = slice(0, 400), slice(400, None)
    settings = SETTINGS.model_copy(update={"min_steps": [1500]})
    (weight, bias), _ = fit_linear(x[train], truth[train], x[train], truth[train], settings, exclusive)
    assert (((x[rest] @ weight.T + bias).argmax(1)) == odd[rest]).mean() < 0.65
    mlp, _ = fit_mlp(x[train], truth[train], x[train], truth[train], settings, exclusive, seed=0)
    assert (mlp_logits(mlp, x[rest]).argmax(1) == odd[rest]).mean() > 0.9


def test_the_perceptron_is_a_function_of_its_seed():
    x, _, truth = blobs(3)
    found = [mlp_logits(fit_mlp(x, truth, x, truth, SETTINGS, True, seed)[0], x) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_weights_are_scikit_learns_balanced_ones():
    _, y, truth = blobs(4)
    y[:60], truth[:60] = 0, np.eye(4)[0]
    expected = compute_class_weight("balanced", classes=np.arange(4), y=y)
    np.testing.assert_allclose(balance(truth, exclusive=True), expected, rtol=1e-6)


def test_the_loss_and_the_score_are_of_the_one_true_class():
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(9) % 4
    truth = torch.nn.functional.one_hot(y, 4).float()
    by_hand = -(logits.exp() / logits.exp().sum(1, keepdim=True))[torch.arange(9), y].log().mean()
    torch.testing.assert_close(loss_of(logits, truth, exclusive=True), by_hand)
    right = (logits.argmax(1) == y).double().mean().item()
    assert validation_score(truth.numpy(), logits.numpy(), exclusive=True) == pytest.approx(right)


@pytest.mark.parametrize("arm", ["scratch-linear", "scratch-knn", "scratch-mlp", "scratch-finetune"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_every_mode_gives_probabilities_that_beat_chance(arm, exclusive, tmp_path):
    store = write_small_cohort(tmp_path / "cohort", patients=40, exclusive=exclusive)
    out = tmp_path / "out"
    train_arm(
        arm,
        SETTINGS,
        store=store,
        backbone="b",
        model=TINY_RESNET,
        pretrained=None,
        fraction=1.0,
        fold=0,
        seed=0,
        out=out,
    )
    found = read_predictions(out)
    assert found.metadata.plain()["exclusive"] is exclusive
    test = found.take("test")
    p = test.probabilities()
    if exclusive:
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
        assert accuracy_score(test.truth().argmax(1), p.argmax(1)) > 0.8
    else:
        assert roc_auc_score(test.truth(), p) > 0.6
    assert (out / "classifier.safetensors").stat().st_size > 0
