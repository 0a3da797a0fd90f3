"""The measures against naive loops and known cases."""

import math

import numpy as np
import pytest
import torch

from octdino.pretrain.monitor import feature_spread, knn_scores, macro_auroc, rank_me


def test_knn_equals_a_loop_and_never_asks_the_same_patient():
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


def test_a_copy_of_the_query_from_its_own_patient_does_not_answer():
    bank = torch.tensor([[1.0, 0], [0, 1.0]])
    one, other = torch.tensor([0]), torch.tensor([0, 1])
    scores = knn_scores(bank[:1], bank, torch.tensor([[1.0], [0.0]]), one, other, k=1)
    assert scores.item() == 0


def test_macro_auroc_skips_labels_without_both_classes():
    truth = np.array([[0, 1, np.nan], [1, 1, 0], [np.nan, 1, 0]])
    scores = np.array([[0.1, 0.5, 0], [0.9, 0.5, 0], [0.0, 0.5, 1]])
    assert macro_auroc(truth, scores) == 1.0
    assert math.isnan(macro_auroc(truth[:, 1:2], scores[:, 1:2]))


def test_spread_and_rank_of_known_clouds():
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(4000, 32, generator=generator)
    assert feature_spread(cloud) == pytest.approx(1, abs=0.02)
    assert rank_me(cloud) > 30
    assert rank_me(cloud + 100) == pytest.approx(rank_me(cloud), rel=1e-3)  # what all share is no dimension
    assert rank_me(cloud[:, :1] * torch.randn(32)) == pytest.approx(1, abs=0.01)
    collapsed = torch.ones(100, 32)
    assert feature_spread(collapsed) == pytest.approx(0, abs=1e-6)
    assert rank_me(collapsed) == pytest.approx(1, abs=0.01)
