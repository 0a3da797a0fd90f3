"""When a visit was, by its name in the manifest: weeks where the name contains them, else its number."""

import datetime
import re
from typing import Literal, NamedTuple

import pandas as pd

WEEK = re.compile(r"(?:w|wk|weeks?)[-_ ]?(\d+(?:\.\d+)?)", re.IGNORECASE)  # W12, week 12
DATE = re.compile(r"(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})")  # 2019-03-01, 20190301
NUMBER = re.compile(r"\d+")
DAYS = 7

Scale = Literal["weeks", "visits"]


class VisitTime(NamedTuple):
    """A visit's time on a scale; only times on one scale can be compared."""

    value: float
    scale: Scale


def visit_time(name: str) -> VisitTime | None:
    """Return the time in a visit's name: weeks of W12, week 12 or a date, else the last number in it.

    A name without a number has none.
    """
    name = name.strip()
    if match := WEEK.fullmatch(name):
        return VisitTime(float(match[1]), "weeks")
    if match := DATE.fullmatch(name):
        try:
            return VisitTime(datetime.date(*map(int, match.groups())).toordinal() / DAYS, "weeks")
        except ValueError:  # eight digits that are no date
            return None
    numbers = NUMBER.findall(name)
    return VisitTime(float(numbers[-1]), "visits") if numbers else None


def visit_times(visits: pd.Series) -> list[VisitTime | None]:
    """Return the time of each scan's visit, None where the visit is unknown or its name has none."""
    known = visits.fillna("").astype(str)
    times = {name: visit_time(name) for name in known.unique()}
    return [times[name] for name in known]
