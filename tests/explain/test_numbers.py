"""Overlap, Jaccard and retrieval against slow, obvious code and against other people's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from octdino.config import ExplainSettings
from octdino.explain.jaccard import PROTOCOLS, jaccard, pairwise_iou
from octdino.explain.lesion_masks import Truth
from octdino.explain.overlap import chance, iou, measure, pixel_auroc, pointing
from octdino.explain.regions import Maps
from octdino.explain.retrieval import nearest, precision, same_patient
from octdino.explain.summary import summarize


def random_masks(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4


def test_iou_is_monais_and_torchmetrics() -> None:
    from monai.metrics import compute_iou
    from torchmetrics.functional.classification import binary_jaccard_index

    predicted, true = random_masks(5, 3, 20, 20), random_masks(5, 3, 20, 20, seed=1)
    ours = iou(predicted.flatten(2), true.flatten(2))
    torch.testing.assert_close(ours.float(), compute_iou(predicted.float(), true.float()))
    for index in np.ndindex(5, 3):
        torch.testing.assert_close(ours[index].float(), binary_jaccard_index(predicted[index].int(), true[index].int()))
    everywhere = torch.ones(5, 400, dtype=torch.bool)
    pairs = pairwise_iou(predicted.flatten(2), true.flatten(2), everywhere)
    torch.testing.assert_close(pairs.diagonal(dim1=1, dim2=2).double(), ours, rtol=1e-5, atol=1e-6)


def test_pixel_auroc_is_scikit_learns() -> None:
    maps = torch.randint(0, 9, (6, 200), generator=torch.Generator().manual_seed(0)).float()
    true = random_masks(6, 200)
    found = pixel_auroc(maps, true)
    for row in range(6):
        assert found[row] == pytest.approx(roc_auc_score(true[row].numpy(), maps[row].numpy()))
    assert torch.isnan(pixel_auroc(maps[:1], torch.ones(1, 200, dtype=torch.bool))).all()


def test_pointing_counts_the_maximum() -> None:
    maps = torch.tensor([[0.0, 1.0, 0.5], [2.0, 2.0, 0.0]])
    true = torch.tensor([[False, True, False], [True, False, False]])
    assert pointing(maps, true).tolist() == [1.0, 0.5]


def test_chance_is_what_random_maps_reach() -> None:
    torch.manual_seed(0)
    true = (torch.arange(900) < 90).expand(200, 900)
    shown = torch.rand(200, 1, 30, 30)
    flat = shown.flatten(1)
    expected = {name: float(level.mean()) for name, level in chance(true, [0.3]).items()}
    assert float(pointing(flat, true).mean()) == pytest.approx(expected["pointing"], abs=0.06)
    assert float(pixel_auroc(flat, true).mean()) == pytest.approx(expected["pixel_auroc"], abs=0.02)
    cut = flat.argsort(1).argsort(1) < 270  # 30 % of the pixels, as of a map with the same value everywhere
    assert float(iou(cut, true).mean()) == pytest.approx(expected["iou@30"], abs=0.01)


def lesions(labels: int = 3, count: int = 40, size: int = 16) -> Truth:
    planes = random_masks(count, labels, size, size, seed=3) & random_masks(count, labels, 1, 1, seed=4)
    bits = (planes.int() << torch.arange(labels, dtype=torch.int32)[:, None, None]).sum(1, dtype=torch.int32)
    return Truth(True, bits, bits, np.ones(count, bool), labels)


def test_measure_takes_each_label_with_its_map() -> None:
    truth = lesions()
    true = truth.label_masks(np.arange(40))
    maps = Maps("cam", torch.rand(40, 3, 16, 16), (16, 16), smooth=True)
    for chosen in (maps, maps.maximum()):
        values, levels = measure(chosen, truth, [0.5])
        for scan, label in np.ndindex(40, 3):
            own = chosen.native[scan, label % chosen.native.shape[1]]
            if not true[scan, label].any():
                assert np.isnan(values["pointing"][scan, label])
                continue
            assert levels["pointing"][scan, label] == pytest.approx(float(true[scan, label].double().mean()))
            inside = bool(true[scan, label].flatten()[own.argmax()])
            assert values["pointing"][scan, label] == inside
            mask = Maps("", own[None, None], (16, 16), smooth=True).masks(0.5)[0, 0]
            wanted = float((mask & true[scan, label]).sum() / (mask | true[scan, label]).sum())
            assert values["iou@50"][scan, label] == pytest.approx(wanted)


def naive_jaccard(heads: np.ndarray, classes: np.ndarray, objects: np.ndarray) -> dict[str, float]:
    """One image, pixel by pixel: heads bool [heads, H, W]; numbers [H, W], 255 nobody's."""

    def overlap(one: np.ndarray, region: np.ndarray, counted: np.ndarray) -> float:
        both = either = 0
        for y, x in np.ndindex(region.shape):
            if counted[y, x]:
                both += int(one[y, x] and region[y, x])
                either += int(one[y, x] or region[y, x])
        return both / either if either else 0.0

    def best(region: np.ndarray, counted: np.ndarray) -> float:
        return max(overlap(one, region, counted) for one in heads)

    void, everywhere = classes == 255, np.ones(classes.shape, bool)
    numbers = sorted(set(classes.ravel()) - {0, 255})
    if not numbers:
        return dict.fromkeys(PROTOCOLS, float("nan"))
    largest = classes == max(numbers, key=lambda number: ((classes == number).sum(), -number))
    union = (classes > 0) & ~void
    each = [best(objects == number, ~void) for number in sorted(set(objects.ravel()) - {0, 255})]
    return {
        "paper": float(np.mean(each)),
        "largest": best(largest, ~void),
        "union": best(union, ~void),
        "largest_void": best(largest | void, everywhere),
        "union_void": best(union | void, everywhere),
    }


def voc_like(count: int, size: int, seed: int) -> Truth:
    """Squares of classes, each its own object, with void around some; the first image is empty."""
    rng = np.random.default_rng(seed)
    classes, objects = (np.zeros((count, size, size), np.int32) for _ in range(2))
    for image in range(1, count):
        for number in range(1, rng.integers(2, 5)):
            top, left = rng.integers(0, size - 4, 2)
            place = (slice(top, top + rng.integers(2, 5)), slice(left, left + rng.integers(2, 5)))
            classes[image][place], objects[image][place] = rng.integers(1, 20), number
            border = (slice(max(top - 1, 0), top), place[1])
            classes[image][border] = objects[image][border] = 255
    return Truth(False, torch.from_numpy(classes), torch.from_numpy(objects), np.ones(count, bool), 0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05]))
def test_jaccard_is_what_loops_find(seed: int, blob: float) -> None:
    truth = voc_like(18, 9, seed)  # more than one chunk
    torch.manual_seed(seed)
    maps = Maps("attention", torch.rand(18, 3, 9, 9) ** 3, (9, 9), smooth=False)
    found, objects = jaccard(maps, truth, 0.6, blob)
    heads = maps.masks(0.6, blob).numpy()
    for image in range(18):
        classes, numbered = truth.classes[image].numpy(), truth.objects[image].numpy()
        expected = naive_jaccard(heads[image], classes, numbered)
        for protocol in PROTOCOLS:
            assert found[protocol][image] == pytest.approx(expected[protocol], nan_ok=True, abs=1e-6), protocol
        assert objects[image] == len(set(numbered.ravel()) - {0, 255})


def test_void_matters_where_it_is_counted() -> None:
    classes = torch.zeros(1, 4, 4, dtype=torch.int32)
    classes[0, 0, :2], classes[0, 1, :2] = 7, 255
    truth = Truth(False, classes, classes, np.ones(1, bool), 0)
    heads = torch.zeros(1, 1, 4, 4)
    heads[0, 0, :2, :2] = 1  # exactly the object and its border
    found, _ = jaccard(Maps("attention", heads, (4, 4), smooth=False), truth, 1.0, 0.0)
    assert all(found[name][0] == 1 for name in PROTOCOLS)
    heads[0, 0, 1] = 0  # the object alone
    found, _ = jaccard(Maps("attention", heads, (4, 4), smooth=False), truth, 1.0, 0.0)
    assert (found["union"][0], found["union_void"][0]) == (1.0, 0.5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_precision_is_what_a_loop_finds(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    features, patient = rng.normal(size=(20, 5)), rng.integers(0, 4, 20)
    truth = rng.choice([0.0, 1.0, np.nan], (20, 2))
    apart = torch.from_numpy(patient[:, None] == patient[None, :])
    tensor = torch.from_numpy(features)
    near = nearest(tensor, tensor, apart, 8, chunk=7).numpy()
    found = precision(near, truth, truth, k)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for query in range(20):
        others = [row for row in range(20) if patient[row] != patient[query]]
        best = sorted(others, key=lambda row: -float(unit[query] @ unit[row]))[:k]
        assert near[query, : len(best)].tolist() == best[:8]
        for label in range(2):
            votes = [truth[row, label] for row in best if not np.isnan(truth[row, label])]
            expected = np.mean(votes) if truth[query, label] == 1 and votes else np.nan
            assert found[query, label] == pytest.approx(expected, nan_ok=True)


def test_neighbours_of_the_same_patient() -> None:
    near = np.array([[1, 2], [0, 2], [0, -1]])
    patient = np.array([5, 5, 6])
    assert same_patient(near, patient, patient, 2).tolist()[:2] == [0.5, 0.5]
    assert np.isnan(same_patient(near, patient, patient, 2)[2])


def test_rows_have_an_interval_over_patients() -> None:
    values = np.array([[1.0, np.nan], [0.0, 0.5], [1.0, np.nan], [1.0, np.nan]])
    patient = np.array([3, 3, 8, 9])
    rows = summarize(values, patient, ["a", "b"], ExplainSettings(resamples=200), None)
    one, two, macro = rows
    assert (one["label"], one["value"], one["n_scans"], one["n_patients"]) == ("a", 0.75, 4, 3)
    assert one["low"] < 0.75 < one["high"]
    assert two["value"] == 0.5
    assert np.isnan(two["low"])
    assert (macro["label"], macro["value"], macro["n_patients"]) == ("macro", 0.625, 3)
    assert summarize(values * np.nan, patient, ["a", "b"], ExplainSettings(), None) == []
