"""Nearest neighbors compared with naive loops, torch and scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from octdino.stats.neighbors import euclidean_knn, knn_scores


def problem(queries: int = 7, count: int = 30, dim: int = 5, labels: int = 2) -> tuple[np.ndarray, ...]:
    """Queries, bank, labels of which some are missing, and the patients of both."""
    rng = np.random.default_rng(0)
    bank, asked = (rng.normal(size=(n, dim)).astype(np.float32) for n in (count, queries))
    truth = (rng.random((count, labels)) > 0.5).astype(np.float32)
    truth[::4, 1] = np.nan
    return asked, bank, truth, np.arange(queries) % 3, np.arange(count) % 5


def test_knn_equals_a_loop_and_excludes_the_same_patient() -> None:
    queries, bank, labels, query_patients, bank_patients = problem()
    got = knn_scores(queries, bank, labels, query_patients, bank_patients, k=6, temperature=0.1, chunk=3)
    assert got.dtype == np.float32
    for q, query in enumerate(queries):
        similarity = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
        near = [i for i in np.argsort(-similarity) if bank_patients[i] != query_patients[q]][:6]
        for label in range(2):
            votes = [(math.exp(similarity[i] / 0.1), labels[i, label]) for i in near]
            known = [(w, v) for w, v in votes if not math.isnan(v)]
            expected = sum(w * v for w, v in known) / sum(w for w, _ in known) if known else 0.5
            assert got[q, label] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("k", [1, 20, 500])
def test_knn_equals_the_same_in_torch(k: int) -> None:
    """As in lines of torch: more neighbors than scans, and scans of one patient alone, included."""
    given = problem(queries=300, count=400, dim=16, labels=3)
    queries, bank, labels, query_patients, bank_patients = map(torch.from_numpy, given)
    similarity = F.normalize(queries, dim=-1) @ F.normalize(bank, dim=-1).T
    similarity[query_patients[:, None] == bank_patients] = -torch.inf
    top, index = similarity.topk(min(k, len(bank)), dim=1)
    weight = torch.exp(top / 0.07)[:, :, None] * ~torch.isnan(labels)[index]
    total = weight.sum(1)
    expected = torch.where(total > 0, (weight * torch.nan_to_num(labels)[index]).sum(1) / total.clamp(min=1e-30), 0.5)
    np.testing.assert_allclose(knn_scores(*given, k=k), expected.numpy(), atol=1e-5)


def test_knn_excludes_a_copy_of_the_query_of_the_same_patient() -> None:
    bank, labels = np.eye(2, dtype=np.float32), np.array([[1.0], [0.0]], np.float32)
    scores = knn_scores(bank[:1], bank, labels, np.array([0]), np.array([0, 1]), k=1)
    assert scores.item() == 0


def test_without_a_known_neighbor_the_share_is_one_half() -> None:
    bank, labels = np.eye(2, dtype=np.float32), np.array([[1.0, np.nan], [1.0, 0.0]], np.float32)
    assert knn_scores(bank, bank, labels, np.array([1, 0]), np.array([0, 0]), k=1).tolist() == [[1.0, 0.5], [0.5, 0.5]]


def test_euclidean_knn_equals_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    bank, queries, classes = rng.normal(size=(60, 7)), rng.normal(size=(40, 7)), rng.integers(0, 4, 60)
    expected = KNeighborsClassifier(5).fit(bank, classes).predict(queries)
    assert euclidean_knn(queries, bank, classes, chunk=13).tolist() == expected.tolist()
