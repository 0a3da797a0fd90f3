"""The alarm at known histories: either collapse, a healthy run, one that recovers."""

import math

import pytest

from octdino.pretrain.collapse import LINE, ONE_PROTOTYPE, POINT, UNIFORM, alarms

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


@pytest.mark.parametrize("alarm", SICK)
def test_a_run_that_sits_in_a_collapse_is_told_with_its_remedy(alarm):
    assert alarms(history({}, {}, *[SICK[alarm]] * 3), 5) == [alarm]
    assert "remedy: " in alarm


@pytest.mark.parametrize("alarm", SICK)
def test_one_that_is_only_passing_through_is_not(alarm):
    assert alarms(history({}, {}, {}, SICK[alarm], SICK[alarm]), 5) == []
    assert alarms(history(*[SICK[alarm]] * 4, {}), 5) == []


def test_a_healthy_run_is_left_alone():
    assert alarms(history(*[{}] * 10), 10) == []


def test_early_in_a_long_run_flat_targets_are_normal():
    flat = history(*[SICK[UNIFORM]] * 10)
    assert alarms(flat, 100) == []
    assert alarms(flat, 50) == [UNIFORM]


def test_measures_that_are_missing_raise_nothing():
    assert alarms([{"epoch": 1, "loss": 3.0}] * 10, 10) == []


def test_epochs_between_two_evaluations_do_not_hide_a_collapse():
    """Features are measured every other epoch; the rows between lack the measure."""
    rows = [{"epoch": 1, "feature_std": 0.001}, {"epoch": 2}] * 5
    assert alarms(rows, 10) == [POINT]


def test_between_two_evaluations_the_last_one_counts():
    sick, unmeasured = {"epoch": 1, "rankme": 1.1}, {"epoch": 2}
    assert alarms([sick, unmeasured] * 4 + [{"epoch": 9, "rankme": 20.0}, unmeasured], 10) == [], "it recovered"
    assert alarms([sick, *[unmeasured] * 3], 10) == [], "too long ago to say"


def test_two_epochs_say_nothing():
    assert alarms(history(SICK[POINT], SICK[POINT]), 2) == []
    assert alarms([], 10) == []


def test_both_signs_of_one_run_are_told():
    assert alarms(history(*[{**SICK[POINT], **SICK[LINE]}] * 3), 3) == [POINT, LINE]
