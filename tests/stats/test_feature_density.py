"""The density of features against scikit-learn's probabilistic PCA, and its threshold against a naive search."""

import numpy as np
from sklearn.decomposition import PCA

from octdino.stats.feature_density import MOST_COMPONENTS, accepting_threshold, fit_density


def correlated(count, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 5)) @ rng.normal(size=(5, width)) + 0.3 * rng.normal(size=(count, width)) + 2


def test_distances_are_those_of_probabilistic_pca():
    train, new = correlated(400, 90), correlated(50, 90, seed=1) + 1
    density = fit_density(train)
    mean, std = train.mean(0), train.std(0)
    reference = PCA(MOST_COMPONENTS, svd_solver="full").fit((train - mean) / std)
    x = (new - mean) / std
    expected = np.sqrt(np.einsum("nd,de,ne->n", x, reference.get_precision(), x))
    np.testing.assert_allclose(density.distances(new), expected, rtol=1e-6)


def test_few_scans_and_constant_features_give_finite_distances():
    train = correlated(6, 40)
    train[:, 3] = 7.0
    found = fit_density(train).distances(np.vstack([train, train + 5]))
    assert np.isfinite(found).all()
    assert found[6:].min() > found[:6].max()


def test_threshold_gives_each_patient_the_same_weight():
    distances = np.array([1.0, 2.0, 3.0, 4.0, 10.0, 20.0])
    patients = np.array(["a", "a", "a", "a", "b", "c"])
    for share in (0.2, 1 / 3, 0.5, 2 / 3, 0.9, 1.0):
        reached = {t: np.mean([(distances[patients == p] <= t).mean() for p in "abc"]) for t in distances}
        expected = min(t for t, accepted in reached.items() if accepted >= share - 1e-9)
        assert accepting_threshold(distances, patients, share) == expected
