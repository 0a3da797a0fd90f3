"""Collapse warnings at known histories: each kind of collapse, a healthy run, one that recovers."""

import math

import pytest

from octdino.pretrain.collapse import LINE, ONE_PROTOTYPE, POINT, UNIFORM, collapse_warnings

LN_K = math.log(256)
HEALTHY = {"teacher_entropy": 3.0, "mean_entropy": 5.2, "ln_k": LN_K, "feature_std": 0.6, "rankme": 20.0}
SICK = {
    UNIFORM: {"teacher_entropy": 0.999 * LN_K},
    ONE_PROTOTYPE: {"mean_entropy": 0.1, "teacher_entropy": 0.05},
    POINT: {"feature_std": 0.001},
    LINE: {"rankme": 1.2},
}


def history(*rows):
    return [{"epoch": index + 1, **HEALTHY, **row} for index, row in enumerate(rows)]


@pytest.mark.parametrize("kind", SICK)
def test_lasting_collapse_gives_one_warning_with_remedy(kind):
    assert collapse_warnings(history({}, {}, *[SICK[kind]] * 3), 5) == [kind]
    assert "remedy: " in kind


@pytest.mark.parametrize("kind", SICK)
def test_short_collapse_gives_no_warning(kind):
    assert collapse_warnings(history({}, {}, {}, SICK[kind], SICK[kind]), 5) == []
    assert collapse_warnings(history(*[SICK[kind]] * 4, {}), 5) == []


def test_healthy_run_gives_no_warning():
    assert collapse_warnings(history(*[{}] * 10), 10) == []


def test_uniform_targets_early_in_a_long_run_give_no_warning():
    flat = history(*[SICK[UNIFORM]] * 10)
    assert collapse_warnings(flat, 100) == []
    assert collapse_warnings(flat, 50) == [UNIFORM]


def test_missing_measures_give_no_warning():
    assert collapse_warnings([{"epoch": 1, "loss": 3.0}] * 10, 10) == []


def test_collapse_is_detected_with_evaluation_every_second_epoch():
    """Features are measured every other epoch; the rows between lack the measure."""
    rows = [{"epoch": 1, "feature_std": 0.001}, {"epoch": 2}] * 5
    assert collapse_warnings(rows, 10) == [POINT]


def test_recovery_at_the_last_evaluation_gives_no_warning():
    sick, unmeasured = {"epoch": 1, "rankme": 1.1}, {"epoch": 2}
    assert collapse_warnings([sick, unmeasured] * 4 + [{"epoch": 9, "rankme": 20.0}, unmeasured], 10) == [], (
        "it recovered"
    )
    assert collapse_warnings([sick, *[unmeasured] * 3], 10) == [], "only one evaluation"


def test_two_epochs_give_no_warning():
    assert collapse_warnings(history(SICK[POINT], SICK[POINT]), 2) == []
    assert collapse_warnings([], 10) == []


def test_two_signs_of_one_run_give_two_warnings():
    assert collapse_warnings(history(*[{**SICK[POINT], **SICK[LINE]}] * 3), 3) == [POINT, LINE]
