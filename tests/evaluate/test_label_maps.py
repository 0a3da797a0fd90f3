"""Label maps in closed form: probabilities and ground truth of labels that stand for several."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from octdino.config import ExternalSettings
from octdino.evaluate.label_maps import label_map


def test_probabilities_of_exclusive_classes_add_up_also_at_a_temperature() -> None:
    labels = label_map({"AMD": ["CNV", "DRUSEN"]}, ["AMD", "DME"], ["CNV", "DME", "DRUSEN", "NORMAL"], "b")
    p = softmax(np.random.default_rng(0).normal(size=(50, 4)), axis=1)
    combined = labels.probabilities(p, exclusive=True)
    assert combined[:, 0] == pytest.approx(p[:, 0] + p[:, 2])
    assert combined[:, 1] == pytest.approx(p[:, 1])
    warmer = p ** (1 / 2.0) / (p ** (1 / 2.0)).sum(1, keepdims=True)
    assert labels.calibrated(p, 2.0, exclusive=True)[:, 0] == pytest.approx(warmer[:, 0] + warmer[:, 2])
    independent = labels.calibrated(p, 2.0, exclusive=False)[:, 0]
    assert independent == pytest.approx(1 - (1 - expit(logit(p[:, 0]) / 2)) * (1 - expit(logit(p[:, 2]) / 2)))


def test_ground_truth_of_several_labels_is_unknown_only_where_an_unknown_one_decides() -> None:
    labels = label_map({"any": ["a", "b"]}, ["any"], ["a", "b"], "site")
    truth = np.array([[1, np.nan], [0, np.nan], [0, 0], [0, 1], [np.nan, np.nan]])
    assert labels.truth(truth)[:, 0] == pytest.approx([1, np.nan, 0, 1, np.nan], nan_ok=True)


def test_settings_take_one_label_without_brackets_and_null_for_none() -> None:
    cohort = {"name": "phantom", "phantom": {"seed": 9}}
    found = ExternalSettings.model_validate({"name": "b", "cohort": cohort, "labels": {"DME": "DME", "VMT": None}})
    assert found.labels == {"DME": ["DME"], "VMT": []}


def test_a_label_is_tested_only_if_all_that_it_stands_for_are_compared() -> None:
    classes = ["CNV", "DME", "DRUSEN", "NORMAL"]
    labels = label_map({"AMD": ["CNV", "DRUSEN"]}, ["AMD", "DME", "ERM"], classes, "b", ["CNV", "DME", "NORMAL"])
    assert (labels.names, labels.left_out, labels.unused) == ({"DME": ["DME"]}, ["AMD", "ERM"], ["CNV", "NORMAL"])
