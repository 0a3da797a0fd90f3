"""Column and Schema: the parts of a CSV table's schema."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        dtype: string, Int64 or Float64 (pandas' names).
        allowed: allowed values of a cell; None: any of the type.
        pattern: regular expression that a whole text matches; None: any text.
        low, high: the range of a number; None: open.
        needed: whether an empty cell is refused.
        unique: whether two rows with the same cell are refused.
        finite: whether an infinite number is refused.
    """

    name: str
    dtype: str
    meaning: str
    allowed: tuple[str | int, ...] | None = None
    pattern: str | None = None
    low: float | None = None
    high: float | None = None
    needed: bool = False
    unique: bool = False
    finite: bool = True

    @property
    def expected(self) -> str:
        """The allowed values of a cell, in words."""
        if self.allowed is not None:
            *others, last = map(str, self.allowed)
            words = f"{', '.join(others)} or {last}" if others else last
            return words if self.needed else f"{', '.join(map(str, self.allowed))} or empty"
        kind = {"string": "text", "Int64": "a whole number", "Float64": "a number"}[self.dtype]
        if self.pattern is not None:
            kind = f"text of the form {self.pattern}"
        if self.low is not None:
            kind += f" from {self.low:g}" + ("" if self.high is None else f" to {self.high:g}")
        return kind if self.needed else f"{kind}, or empty"


@dataclass(frozen=True)
class Schema:
    """The columns of one table; iterating over a schema gives its columns.

    Attributes:
        columns: those that every such table has.
        rest: schema of any further column; None: further columns are not checked.
        name_fault: returns why a further column's name is not allowed; empty if it is.
        key: columns that together identify a row; two rows with equal values in all of them are refused.
    """

    columns: tuple[Column, ...]
    rest: Column | None = None
    name_fault: Callable[[str], str] | None = None
    key: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]
