"""Online evaluation compared with naive loops, scikit-learn and known cases."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from octdino.config import ImageSettings
from octdino.data.schemas.metadata import Input
from octdino.pretrain.online_eval import evaluate_online, feature_spread, macro_auroc, rank_me
from octdino.pretrain.pretraining_data import OnlineEvalSet
from octdino.stats.neighbors import euclidean_knn, knn_scores


def test_knn_equals_a_loop_and_excludes_the_same_patient():
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(7, 5, generator=generator), torch.randn(30, 5, generator=generator)
    labels = (torch.rand(30, 2, generator=generator) > 0.5).float()
    labels[::4, 1] = torch.nan
    query_patients, bank_patients = torch.arange(7) % 3, torch.arange(30) % 5
    got = knn_scores(queries, bank, labels, query_patients, bank_patients, k=6, temperature=0.1, chunk=3)
    for q in range(7):
        similarity = torch.cosine_similarity(queries[q][None], bank)
        near = [i for i in similarity.argsort(descending=True).tolist() if bank_patients[i] != query_patients[q]][:6]
        for label in range(2):
            votes = [(math.exp(similarity[i] / 0.1), labels[i, label].item()) for i in near]
            known = [(w, v) for w, v in votes if not math.isnan(v)]
            expected = sum(w * v for w, v in known) / sum(w for w, _ in known) if known else 0.5
            assert got[q, label].item() == pytest.approx(expected, rel=1e-4)


def test_knn_excludes_a_copy_of_the_query_of_the_same_patient():
    bank = torch.tensor([[1.0, 0], [0, 1.0]])
    one, other = torch.tensor([0]), torch.tensor([0, 1])
    scores = knn_scores(bank[:1], bank, torch.tensor([[1.0], [0.0]]), one, other, k=1)
    assert scores.item() == 0


def test_macro_auroc_skips_labels_without_both_classes():
    truth = np.array([[0, 1, np.nan], [1, 1, 0], [np.nan, 1, 0]])
    scores = np.array([[0.1, 0.5, 0], [0.9, 0.5, 0], [0.0, 0.5, 1]])
    assert macro_auroc(truth, scores) == 1.0
    assert math.isnan(macro_auroc(truth[:, 1:2], scores[:, 1:2]))


def test_feature_spread_and_rank_me_at_known_distributions():
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(4000, 32, generator=generator)
    assert feature_spread(cloud) == pytest.approx(1, abs=0.02)
    assert rank_me(cloud) > 30
    assert rank_me(cloud + 100) == pytest.approx(rank_me(cloud), rel=1e-3)  # features are centered
    assert rank_me(cloud[:, :1] * torch.randn(32)) == pytest.approx(1, abs=0.01)
    collapsed = torch.ones(100, 32)
    assert feature_spread(collapsed) == pytest.approx(0, abs=1e-6)
    assert rank_me(collapsed) == pytest.approx(1, abs=0.01)


def test_euclidean_knn_equals_scikit_learns():
    rng = np.random.default_rng(3)
    bank, queries, classes = rng.normal(size=(60, 7)), rng.normal(size=(40, 7)), rng.integers(0, 4, 60)
    expected = KNeighborsClassifier(5).fit(bank, classes).predict(queries)
    got = euclidean_knn(*(torch.from_numpy(x) for x in (queries, bank, classes)), chunk=13)
    assert got.tolist() == expected.tolist()


def test_exclusive_labels_give_knn_accuracies():
    """Scans of class c are filled with gray c: a backbone that returns the mean classifies every query."""
    classes = torch.arange(12) % 3
    images = (40 + 80 * classes).to(torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)
    query = np.arange(12) >= 9
    labels = np.eye(3, dtype=np.float32)[classes]
    labels[9] = labels[10]  # one wrong label of three
    scans = OnlineEvalSet(images, labels, torch.arange(12), query, exclusive=True)
    backbone = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), Turn())
    given = Input(image=ImageSettings(), size=16, mean=[0.0], std=[1.0])
    found = evaluate_online(backbone, scans, given, 1, torch.device("cpu"))
    assert found["knn_accuracy"] == pytest.approx(2 / 3)
    assert found["knn5_accuracy"] == pytest.approx(2 / 3)


class Turn(nn.Module):
    """Maps a number to a direction, so that cosine similarity separates numbers."""

    def forward(self, x):
        return torch.cat([torch.cos(3 * x), torch.sin(3 * x)], dim=1)
