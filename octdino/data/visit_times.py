"""When a visit was, by its name in the manifest: weeks or days where the name contains them, a date, or its number."""

import datetime
import re
from typing import Literal, NamedTuple

DAYS = 7  # of a week
AMOUNT = r"[-_ ]?(\d+(?:\.\d+)?)"
WEEK = re.compile(rf"(?:w|wk|weeks?){AMOUNT}", re.IGNORECASE)  # W12, week 12
DAY = re.compile(rf"(?:d|days?){AMOUNT}", re.IGNORECASE)  # D84, day 84
DATE = re.compile(  # 2019-03-01, 20190301, 2019-03-01 10:30:00, 2019-03-01T10:30Z
    r"(\d{4})[-_./]?(\d{2})[-_./]?(\d{2})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?P<zone> ?(?:Z|[+-]\d{2}:?\d{2}))?)?"
)
OTHER_DATE = re.compile(r"\d{1,2}([-_./])\d{1,2}\1\d{4}|\d{4}[-_./]\d{1,2}[-_./]\d{1,2}")  # 01.03.2019, 2019-3-1
VISIT = re.compile(r"(?<![a-z])(?:v|visit)[-_ ]?(\d+)", re.IGNORECASE)  # V3, visit 2 of 5
OF_ALL = re.compile(r"(\d+)(?:st|nd|rd|th)?[-_ ]?of[-_ ]?\d+", re.IGNORECASE)  # 3rd of 12
NUMBER = re.compile(r"\d+")

Scale = Literal["weeks", "visits", "dates"]


class VisitTime(NamedTuple):
    """A visit's time on a scale; only times on one scale can be compared.

    Attributes:
        value: weeks, of dates since the first day of the calendar; or the number of the visit.
        scale: weeks since some visit, of the name or its days; number of the visit; or date.
    """

    value: float
    scale: Scale


def visit_time(name: str) -> VisitTime | None:
    """Return the time in a visit's name: weeks of W12, day 84 or a date, else the number of the visit.

    That is the number after v or visit, else the first of "3 of 12", else the last number. Time of day and time zone of
    a date are left out: the day is that which is written. A name without a number has no time, and neither has a date
    that is none.
    """
    name = name.strip()
    if match := WEEK.fullmatch(name):
        return VisitTime(float(match[1]), "weeks")
    if match := DAY.fullmatch(name):
        return VisitTime(float(match[1]) / DAYS, "weeks")
    if match := DATE.fullmatch(name):
        try:
            return VisitTime(datetime.date(*map(int, match.groups()[:3])).toordinal() / DAYS, "dates")
        except ValueError:
            return None
    if OTHER_DATE.fullmatch(name):
        return None
    numbers = VISIT.findall(name) or OF_ALL.findall(name) or NUMBER.findall(name)[-1:]
    return VisitTime(float(numbers[0]), "visits") if numbers else None


def visit_time_fault(name: str) -> str | None:
    """Return why times between a visit and others cannot be computed, for a message; None where they can."""
    match = DATE.fullmatch(name.strip())
    if match and match["zone"]:
        return "a date with a time zone; expected the day at the clinic, such as 2019-03-01"
    if visit_time(name) is not None:
        return None
    if match or OTHER_DATE.fullmatch(name.strip()):
        return "no date that can be read; expected such as 2019-03-01"
    return "no number; expected such as W12, day 84, 2019-03-01 or V3"
