"""The adjusted p decides, below 1 - confidence and not at it."""

import math

import pytest

from octdino.stats.significance import alpha, least_adjusted_p, outcome


@pytest.mark.parametrize(
    ("difference", "p", "confidence", "expected"),
    [
        (0.1, 0.049, 0.95, "better"),
        (-0.1, 0.049, 0.95, "worse"),
        (0.1, 0.05, 0.95, "open"),  # 1 - 0.95 is 0.050000000000000044 in floats
        (0.1, 0.05, 0.9, "better"),
        (0.1, 0.1, 0.9, "open"),  # 1 - 0.9 is 0.09999999999999998
        (0.1, 0.01, 0.99, "open"),
        (0.0, 0.01, 0.95, "open"),
        (0.1, math.nan, 0.95, "open"),
        (math.nan, 0.01, 0.95, "open"),
    ],
)
def test_outcome(difference: float, p: float, confidence: float, expected: str) -> None:
    assert outcome(difference, p, confidence) == expected


def test_levels_are_written_as_people_write_them() -> None:
    assert [alpha(confidence) for confidence in (0.95, 0.9, 0.99, 0.8)] == [0.05, 0.1, 0.01, 0.2]


def test_the_least_adjusted_p_is_holms_of_the_least_p() -> None:
    assert least_adjusted_p(3, 99) == pytest.approx(0.06)  # 3 comparisons, least p 2 / 100
    assert least_adjusted_p(100, 99) == 1
