"""Scans as points: near features stay near, the same features give the same places, few scans are no trouble."""

import numpy as np
import pytest

from octdino.explain.scan_projection import most_balanced_label, plot_projection, project


def groups(count: int, dimensions: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Three directions with little noise, `count` scans each."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, dimensions).repeat(count, axis=0)
    return centres * 5 + rng.normal(0, 0.05, centres.shape), np.arange(3).repeat(count)


def test_what_is_alike_lies_together() -> None:
    features, kind = groups(20)
    places, how = project(features, seed=0)
    assert how.startswith("t-SNE")
    away = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(away, np.inf)
    assert (kind[away.argmin(1)] == kind).all()
    np.testing.assert_array_equal(project(features, seed=0)[0], places)


def test_length_of_features_plays_no_part() -> None:
    features, _ = groups(3)
    scale = np.random.default_rng(1).uniform(0.1, 10, (len(features), 1))
    one, how = project(features, seed=0)
    assert how == "first two principal components"
    np.testing.assert_allclose(np.abs(project(features * scale, seed=0)[0]), np.abs(one), atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 11, 12, 13])
@pytest.mark.parametrize("dimensions", [1, 2, 64])
def test_few_scans(count: int, dimensions: int) -> None:
    places, _ = project(np.random.default_rng(0).normal(size=(count, dimensions)), seed=0)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()


def test_the_label_nearest_to_half() -> None:
    nan = np.nan
    truth = np.array([[1, 1, 0], [1, 0, 0], [1, nan, 0], [1, 1, 1]], float)
    assert most_balanced_label(truth) == 1  # 2 of 3
    assert most_balanced_label(np.ones((4, 2))) is None


def test_a_panel_for_what_is_known() -> None:
    rng = np.random.default_rng(0)
    places, patient, nothing = rng.normal(size=(30, 2)), np.arange(30) // 3, np.full(30, np.nan)
    truth, cst = rng.integers(0, 2, 30).astype(float), rng.uniform(200, 500, 30)
    full = plot_projection(places, "IRF", truth, cst, patient)
    assert [axes.get_title("left") for axes in full.axes[:3]] == ["IRF", "CST, µm", "10 patients"]
    bare = plot_projection(places, "", None, nothing, np.arange(30))
    assert [axes.get_title("left") for axes in bare.axes] == ["each its own patient"]
