"""Decisions that the page shows beside example scans and errors, for classes that exclude each other and for labels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.config import ReportSettings
from octdino.data.predictions import Predictions, read_predictions, write_predictions
from octdino.report import write_report
from octdino.report.example_scans import FALSE_ALARM, MISSED, _wrong, choose_examples, decide
from tests.results import write_arm, write_cohort, write_tables

CLASSES = ["CNV", "DME", "NORMAL"]
P = np.array([[0.64, 0.32, 0.04], [0.45, 0.50, 0.05], [0.36, 0.16, 0.48]])
TRUTH = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])


def written(folder: Path, exclusive: bool, temperature: float | None) -> Predictions:
    """Three test scans; every threshold is 0.4, above which two classes of a scan may be."""
    rows = pd.DataFrame({"scan_id": ["a", "b", "c"], "patient": ["p", "q", "r"], "split": "test"})
    rows[CLASSES] = TRUTH
    calibration = {"temperature": temperature, "from": "val", "n_patients": 3, "n_scans": 3}
    metadata = {
        "arm": "dino-linear", "backbone": "b", "fraction": 1.0, "fold": 0, "seed": 0, "exclusive": exclusive,
        "thresholds": dict.fromkeys(CLASSES, 0.4), "thresholds_from": "val", "calibration": calibration,
        "n_train_patients": 3, "octdino": "0.1.0",
    }  # fmt: skip
    write_predictions(folder, rows, CLASSES, P, metadata)
    return read_predictions(folder)


def test_of_exclusive_classes_the_most_probable_is_called_at_calibrated_probabilities(tmp_path: Path) -> None:
    found = decide(written(tmp_path, True, 2.0))
    assert found.called.tolist() == [[True, False, False], [False, True, False], [False, False, True]]
    roots = np.sqrt(P)  # softmax of log(p) / 2
    np.testing.assert_allclose(found.p, roots / roots.sum(1, keepdims=True), atol=1e-12)
    assert found.thresholds == [None, None, None]
    np.testing.assert_allclose(found.margin[0], found.p[0, 0] - [found.p[0, 1], found.p[0, 1], found.p[0, 2]])


def test_exclusive_classes_without_a_temperature_are_shown_as_predicted(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decide(written(tmp_path, True, None)).p, P)


def test_independent_labels_are_called_at_their_thresholds(tmp_path: Path) -> None:
    found = decide(written(tmp_path, False, 2.0))
    assert found.called.tolist() == [[True, False, False], [True, True, False], [False, False, True]]
    np.testing.assert_array_equal(found.p, P)
    assert found.thresholds == [0.4] * 3


def test_a_wrong_class_is_a_miss_of_one_and_a_false_alarm_of_another(tmp_path: Path) -> None:
    found = written(tmp_path, True, 2.0)
    wrong = _wrong(tmp_path, CLASSES)
    assert sorted(wrong[["scan_id", "label", "kind"]].itertuples(index=False, name=None)) == [
        ("b", "CNV", MISSED), ("b", "DME", FALSE_ALARM), ("c", "DME", MISSED), ("c", "NORMAL", FALSE_ALARM),
    ]  # fmt: skip
    assert wrong["threshold"].isna().all()
    reasons = {why: found.table["scan_id"][row] for row, why in choose_examples(found, CLASSES, 3)}
    assert reasons[("CNV", "found")] == "a"
    assert reasons[("DME", MISSED)] == "c"


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_page_shows_thresholds_only_where_they_decide(tmp_path: Path, exclusive: bool) -> None:
    root = tmp_path / "phantom"
    write_cohort(root / "cohort")
    arms = [write_arm(root / "classify", root / "cohort", arm) for arm in ("scratch-finetune", "dino-linear")]
    write_tables(root, arms)
    for arm in arms:
        path = arm / "classifier.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "exclusive": exclusive}))
    write_report(ReportSettings(), root, {}, root / "report" / "report.html")
    text = (root / "report" / "report.html").read_text()
    shown = text[text.index('<section id="examples">') :]
    assert ('class="number">threshold</th>' in shown) != exclusive
    assert (", threshold 0." in shown) != exclusive
    assert ("p: calibrated probability; the most probable" in shown) == exclusive
