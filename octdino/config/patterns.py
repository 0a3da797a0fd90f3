"""Regular expressions that a user gives: one group, and a run time that is bounded before they are used.

Python's matcher backtracks: `(a+)+$` takes years on a name of 40 characters. So a repetition inside a repetition is
refused, and the steps that the rest may take on the longest name are estimated from its repetitions and alternatives.
"""

import re
import warnings
from math import factorial

LONGEST_NAME = 128  # characters of a file name; a pattern is applied to no longer one
LONGEST_PATTERN = 200
MOST_STEPS = 2_000_000_000  # of the matcher on one name, some ten seconds at worst
_COUNTED = re.compile(r"\{(\d*)(,?)(\d*)\}")

_SPACED = re.compile(r"\(\?(?:#|[a-zA-Z-]*x)")


def compile_patient_pattern(text: str) -> re.Pattern[str]:
    """Return the compiled pattern, whose one group is the patient's id in a file name.

    Raises:
        ValueError: it is no regular expression, has another number of groups, or may take too long.
    """
    if len(text) > LONGEST_PATTERN:
        raise ValueError(f"{len(text)} characters; expected at most {LONGEST_PATTERN}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about syntax that later versions may read otherwise
            pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if _SPACED.search(text):  # blanks and comments may stand between a group and its repetition
        raise ValueError(f"{text!r} has comments or the flag x; expected a pattern without")
    if pattern.groups != 1:
        raise ValueError(
            f"{text!r} has {pattern.groups} groups; expected one pair of parentheses around the patient's id, as in "
            r"'-(\d+)-'"
        )
    if _steps(text) > MOST_STEPS:
        raise ValueError(f"{text!r} may take too long on some names; expected fewer of * + ? {{}} and |")
    return pattern


class _Level:
    """What was read of one group: whether it repeats something or has alternatives, and how many of these."""

    def __init__(self) -> None:
        self.choices, self.branches = False, 1


def _steps(text: str) -> float:
    """Return an upper estimate of the matcher's steps on a name of LONGEST_NAME characters.

    With u unbounded repetitions there are at most L^(u+1)/(u+1)! ways to place them and the start; every `?`, `{n,m}`
    and `|` multiplies these.

    Raises:
        ValueError: a repetition inside a repetition, or a reference to a group.
    """
    levels, unbounded, ways = [_Level()], 0, 1.0
    place, closed = 0, _Level()  # `closed`: the group that ended just before this place
    while place < len(text):
        sign, before = text[place], closed
        closed = _Level()
        if sign == "\\":
            if text[place + 1 : place + 2].isdigit() and text[place + 1] != "0":
                raise ValueError(f"{text!r} refers to a group; expected a pattern without \\1")
            place += 2
            continue
        if sign == "[":
            place = _end_of_class(text, place)
            continue
        if sign == "(":
            if text.startswith(("(?P=", "(?("), place):
                raise ValueError(f"{text!r} refers to a group; expected a pattern without references")
            levels.append(_Level())
            place += 2 if text.startswith("(?", place) else 1  # this ? is no repetition
            continue
        counted = _COUNTED.match(text, place) if sign == "{" else None
        if sign == ")":
            closed = levels.pop()
            ways *= closed.branches
            levels[-1].choices |= closed.choices or closed.branches > 1
        elif sign == "|":
            levels[-1].branches += 1
        elif sign in "*+?" or counted:
            once = sign == "?"
            if not once and (before.choices or before.branches > 1):
                raise ValueError(f"{text!r} repeats a group that repeats; expected no * + {{}} behind such a group")
            levels[-1].choices = True
            bound = 2.0 if once else _bound(counted)
            unbounded, ways = (unbounded + 1, ways) if bound == 0 else (unbounded, ways * bound)
            place += len(counted[0]) if counted else 1
            place += text[place : place + 1] in ("?", "+")  # lazy and possessive forms
            continue
        place += 1
    return float(ways * levels[0].branches * LONGEST_NAME ** (unbounded + 1) / factorial(unbounded + 1))


def _bound(counted: re.Match[str] | None) -> float:
    """Return in how many ways `{n,m}` may repeat; 0: without a bound."""
    if counted is None or (counted[2] and not counted[3]):
        return 0.0
    least = int(counted[1] or 0)
    return float(max((int(counted[3]) if counted[2] else least) - least, 0) + 1)


def _end_of_class(text: str, place: int) -> int:
    """Return the place behind the character class that begins at `place`."""
    place += 2 if text.startswith("[^", place) else 1
    first = True
    while place < len(text) and (text[place] != "]" or first):
        place += 2 if text[place] == "\\" else 1
        first = False
    return place + 1
