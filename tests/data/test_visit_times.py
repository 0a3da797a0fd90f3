"""Times of visits by their names: weeks, dates, numbers."""

import pandas as pd
import pytest

from octdino.data.visit_times import visit_time, visit_time_fault


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
        ("visit 2 of 5", (2.0, "visits")),
        ("3rd of 12", (3.0, "visits")),
        ("10 of 12", (10.0, "visits")),
        ("TREX2 V3", (3.0, "visits")),
        ("TREX2_3", (3.0, "visits")),
        ("D84", (12.0, "weeks")),
        ("day 84", (12.0, "weeks")),
        ("01.03.2019", None),
        ("2019-3-1", None),
        ("2019-02-30", None),
        ("baseline", None),
        ("", None),
        ("20191399", None),
    ],
)
def test_name_tells_a_time(name: str, expected: tuple[float, str] | None) -> None:
    assert visit_time(name) == expected


@pytest.mark.parametrize(
    "text", ["%Y-%m-%d", "%Y%m%d", "%Y_%m_%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%MZ"]
)
def test_dates_are_as_far_apart_as_pandas_has_them(text: str) -> None:
    days = pd.date_range("2019-12-25 10:30", periods=80, freq="D")
    times = [visit_time(day.strftime(text)) for day in days]
    assert {time.scale for time in times if time} == {"dates"}
    weeks = [time.value - times[0].value for time in times if time and times[0]]
    assert weeks == pytest.approx(((days - days[0]) / pd.Timedelta(weeks=1)).tolist())


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("W4", None),
        ("day 3", None),
        ("V1", None),
        ("2019-03-01 10:30", None),
        ("2019-03-01T10:30:00+02:00", "a date with a time zone; expected the day at the clinic"),
        ("20190230", "no date that can be read; expected such as 2019-03-01"),
        ("1/3/2019", "no date that can be read"),
        ("baseline", "no number; expected such as W12, day 84, 2019-03-01 or V3"),
    ],
)
def test_a_time_that_cannot_be_compared_is_explained(name: str, fault: str | None) -> None:
    found = visit_time_fault(name)
    assert found is None if fault is None else (found or "").startswith(fault)
