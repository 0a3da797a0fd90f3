"""Times of visits by their names: weeks, dates, numbers."""

import pandas as pd
import pytest

from octdino.data.visit_times import visit_time, visit_times


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("W0", (0.0, "weeks")),
        ("W104", (104.0, "weeks")),
        ("week 12", (12.0, "weeks")),
        ("wk-3", (3.0, "weeks")),
        ("V1", (1.0, "visits")),
        ("V27", (27.0, "visits")),
        ("3", (3.0, "visits")),
        ("visit 2 of 5", (5.0, "visits")),
        ("baseline", None),
        ("", None),
        ("20191399", None),
    ],
)
def test_name_tells_a_time(name: str, expected: tuple[float, str] | None) -> None:
    assert visit_time(name) == expected


def test_dates_are_weeks_apart() -> None:
    first, second = visit_time("2019-03-01"), visit_time("20190329")
    assert first is not None
    assert second is not None
    assert (first.scale, second.scale) == ("weeks", "weeks")
    assert second.value - first.value == pytest.approx(4)


def test_unknown_visits_have_no_time() -> None:
    assert visit_times(pd.Series(["W4", "", None, "W4"], dtype="string")) == [
        (4.0, "weeks"),
        None,
        None,
        (4.0, "weeks"),
    ]
