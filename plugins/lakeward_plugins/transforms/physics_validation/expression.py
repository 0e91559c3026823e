"""Relations between columns, as text: `abs(pressure - std_pressure(height_meters)) <= 60`.

A row where one of the columns is NaN or infinite is unknown, whatever the others say. Where all inputs are there, a part may still have
no value: a division by zero, the logarithm of -1, a formula outside of its domain. A comparison with it is unknown, and for `and`, `or`
and `not` Kleene's rules hold, so that `wind == 0 or power / wind < 3` is true in a calm.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from lakeward import OptionError
from lakeward_plugins.transforms.physics_validation.formulas import Values
from lakeward_plugins.transforms.physics_validation.reader import Columns, Part, Reader

Flags = npt.NDArray[np.int8]
TRUE, FALSE, UNKNOWN = 1, 0, -1
LONGEST = 1000
"""Characters of an expression."""


@frozen(eq=False)
class Expression:
    """A parsed expression."""

    text: str
    fields: tuple[str, ...]
    """Names of the columns that it reads, sorted."""
    _root: Part = field(repr=False)

    def evaluate(self, columns: Columns, rows: int) -> Flags:
        """Of a condition, for each row: 1 true, 0 false, -1 unknown. Each of `fields` must be among the columns."""
        with np.errstate(all="ignore"):
            true, false = self._root.run(columns)
        there = self._there(columns)
        flags: Flags = np.full(rows, UNKNOWN, np.int8)
        flags += (true | false) & there  # known: -1 becomes 0, and what is true 1
        flags += true & there
        return flags

    def values(self, columns: Columns, rows: int) -> Values:
        """Of a number, its value for each row; NaN where it is unknown."""
        return self._numbers(self._root, columns, rows)

    def sides(self, columns: Columns, rows: int) -> tuple[Values, Values] | None:
        """Of a condition that is one comparison, what is compared and its limit, for each row; None for other conditions."""
        if self._root.sides is None:
            return None
        value, limit = self._root.sides
        return self._numbers(value, columns, rows), self._numbers(limit, columns, rows)

    def _numbers(self, part: Part, columns: Columns, rows: int) -> Values:
        with np.errstate(all="ignore"):
            return np.where(self._there(columns), np.broadcast_to(part.run(columns), rows), np.nan)

    def _there(self, columns: Columns) -> npt.NDArray[np.bool_]:
        return reduce(np.logical_and, (np.isfinite(columns[name]) for name in self.fields))


def parse(text: str, option: str = "expr", *, number: bool = False) -> Expression:
    """The expression that a text means: a condition, or with `number` a number.

    Raises `OptionError` for `option`, with the place in the text, when it means something else or nothing at all.
    """
    if len(text) > LONGEST:
        raise OptionError(option, f"{len(text)} characters; an expression has at most {LONGEST}")
    reader = Reader(text, option)
    root = reader.root()
    if root.condition == number:
        wanted = "a number is wanted, but this is a condition" if number else "this is a number; compare it with something, as in x <= 5"
        raise OptionError(option, f"{text.strip()!r}: {wanted}")
    if not reader.fields:
        raise OptionError(option, f"{text.strip()!r} names no column, so it says the same of every row")
    return Expression(text, tuple(sorted(reader.fields)), root)
