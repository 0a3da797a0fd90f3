"""The vectorised metrics against scikit-learn, resample by resample."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from octdino.config import EvaluateSettings
from octdino.evaluate import classifier_runs, comparable_runs, metrics, resampled_scores
from octdino.evaluate.resampled_scores import bootstrap_scores, complete_labels, make_resample_weights
from octdino.stats.bootstrap import resample_patients


@st.composite
def some_scans(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    scans, patients = draw(st.integers(2, 30)), draw(st.integers(1, 8))
    truth = draw(st.lists(st.booleans(), min_size=scans, max_size=scans))
    score = draw(st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=scans, max_size=scans))
    patient = draw(st.lists(st.integers(0, patients - 1), min_size=scans, max_size=scans))
    cells = st.lists(st.integers(0, 3), min_size=patients * 3, max_size=patients * 3)
    return np.array(truth), np.array(score), np.array(patient), np.array(draw(cells), float).reshape(patients, 3)


@pytest.mark.parametrize("few", [0, 256], ids=["running sums", "matrices"])
@given(case=some_scans())
@settings(max_examples=50, deadline=None)
def test_equal_to_scikit_learn_on_repeated_rows(few: int, case: tuple[np.ndarray, ...]) -> None:
    """Including ties, patients never drawn and resamples with one class, for both orders of summing."""
    truth, score, patient, times = case
    before, metrics.FEW_PATIENTS = metrics.FEW_PATIENTS, few
    try:
        found = [
            *metrics.ranking_metrics(truth, score, patient, times),
            *metrics.decision_metrics(truth, score >= 0.5, patient, times),
        ]
    finally:
        metrics.FEW_PATIENTS = before
    for column in range(times.shape[1]):
        rows = np.repeat(np.arange(len(truth)), times[patient, column].astype(int))
        if len(set(truth[rows])) < 2:
            assert all(np.isnan(values[column]) for values in found)
            continue
        y, p = truth[rows], score[rows]
        expected = [
            roc_auc_score(y, p), average_precision_score(y, p), f1_score(y, p >= 0.5),
            balanced_accuracy_score(y, p >= 0.5),
        ]  # fmt: skip
        assert [values[column] for values in found] == pytest.approx(expected, abs=1e-9)


def test_equal_to_scikit_learn_with_weights_at_size() -> None:
    rng = np.random.default_rng(1)
    patient = rng.integers(0, 40, 3000)
    truth = rng.random(3000) < 0.2
    score = np.round(rng.random(3000) + 0.3 * truth, 2)  # about 30 scans share each score
    times = resample_patients(40, 5, seed=2)
    area, average = metrics.ranking_metrics(truth, score, patient, times)
    for column in range(6):
        weight = times[patient, column]
        assert area[column] == pytest.approx(roc_auc_score(truth, score, sample_weight=weight), abs=1e-9)
        assert average[column] == pytest.approx(average_precision_score(truth, score, sample_weight=weight), abs=1e-9)


@pytest.mark.parametrize("patients", [30, 3000])
def test_chunks_do_not_change_the_numbers(patients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    patient, truth, score = rng.integers(0, patients, 400), rng.random(400) < 0.5, rng.random(400)
    times = resample_patients(patients, 50, seed=0)
    whole = metrics.ranking_metrics(truth, score, patient, times)
    monkeypatch.setattr(metrics, "CELLS", 700)
    for one, other in zip(whole, metrics.ranking_metrics(truth, score, patient, times), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_thousand_resamples_of_a_real_test_set_take_a_moment() -> None:
    """20 patients with 98 scans, as one fold of OLIVES; 16 labels and 20 arms are 320 of these."""
    rng = np.random.default_rng(0)
    patient, truth, score = np.repeat(np.arange(20), 98), rng.random(1960) < 0.3, rng.random(1960)
    times = resample_patients(20, 1000, seed=0)
    began = time.process_time()
    metrics.ranking_metrics(truth, score, patient, times)
    assert time.process_time() - began < 0.25  # 0.015 measured; 5 s for 320


@given(case=some_scans())
@settings(max_examples=50, deadline=None)
def test_the_accuracy_is_scikit_learns_on_repeated_rows(case: tuple[np.ndarray, ...]) -> None:
    truth, score, patient, times = case
    answer = score >= 0.5
    found = metrics.accuracy(answer == truth, patient, times)
    for column in range(times.shape[1]):
        rows = np.repeat(np.arange(len(truth)), times[patient, column].astype(int))
        if len(rows):
            assert found[column] == pytest.approx(accuracy_score(truth[rows], answer[rows]))
        else:
            assert np.isnan(found[column])


def test_all_metrics_of_a_real_test_set_take_seconds() -> None:
    """4 of 320 pairs of arm and label, 1,000 resamples, all 20 metrics: 10 s for 320 measured."""
    rng = np.random.default_rng(0)
    patient, truth = np.repeat(np.arange(20), 98), (rng.random((1960, 2)) < 0.3).astype(np.float32)
    test = comparable_runs.TestSet("0", ["a", "b"], truth, patient, ["primary"] * 2)
    runs = []
    for arm in ("scratch-finetune", "dino-linear"):
        p = rng.random(truth.shape)
        decided = dict.fromkeys(("chosen", "specificity", "sensitivity"), (p > 0.5).astype(float))
        runs.append(classifier_runs.Run(classifier_runs.Key(arm, "resnet18", 1.0, 0), p, p, decided, 9))
    chosen = EvaluateSettings()
    times = make_resample_weights(chosen, test.patients)
    began = time.process_time()
    found = bootstrap_scores(chosen, test, runs, times, complete_labels(chosen, test, runs))
    assert time.process_time() - began < 2
    assert [values.shape for values in found.values()] == [(20, 1001, 4)] * 2
    assert np.isfinite(found[runs[0].key][:-3]).all()  # patient metrics: every patient is positive


def test_scores_stand_where_their_names_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another order of metrics and of the means over labels every name has the values that it had before."""
    rng = np.random.default_rng(3)
    patient, truth = np.repeat(np.arange(12), 6), np.eye(3, dtype=np.float32)[rng.integers(0, 3, 72)]
    test = comparable_runs.TestSet("0", ["a", "b", "c"], truth, patient, ["primary"] * 3, exclusive=True)
    p = rng.dirichlet(np.ones(3), 72)
    decided = {
        name: (p > cut).astype(float) for name, cut in (("chosen", 0.3), ("specificity", 0.5), ("sensitivity", 0.2))
    }
    key = classifier_runs.Key("dino-linear", "b", 1.0, 0)
    run = classifier_runs.Run(key, p, p**2 / (p**2).sum(1, keepdims=True), decided, 9)
    chosen = EvaluateSettings(resamples=100, min_test_patients=2)
    times = make_resample_weights(chosen, test.patients)

    def by_name() -> dict[tuple[str, str], np.ndarray]:
        (found,) = bootstrap_scores(chosen, test, [run], times, complete_labels(chosen, test, [run])).values()
        order, labels = resampled_scores.metric_names(chosen, True), resampled_scores.score_columns(test.labels)
        return {(m, label): found[i, :, k] for i, m in enumerate(order) for k, label in enumerate(labels)}

    before, names, columns = by_name(), resampled_scores.metric_names, resampled_scores.score_columns
    assert sum(np.isfinite(values[0]) for values in before.values()) > 90, "nearly every name has a value here"
    monkeypatch.setattr(resampled_scores, "metric_names", lambda *given: names(*given)[::-1])
    monkeypatch.setattr(
        resampled_scores, "score_columns", lambda labels: [*labels, *columns(labels)[: len(labels) - 1 : -1]]
    )
    after = by_name()
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=str(name))
