"""The numbers behind `window`: what is known of each open window, and how two parts of it become one.

Means and deviations are merged as in Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983): sums of squares
lose all digits when values are large and their spread is small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from attrs import frozen

from lakeward.grouping import Array

# What is known of a field in a window. REST is what rounding cut off from TOTAL, SQUARES the squared deviations from the mean.
PARTS = N, TOTAL, REST, SQUARES, LOW, HIGH = range(6)
NOTHING = np.array([0, 0, 0, 0, np.inf, -np.inf])[:, None]


@frozen(eq=False)
class OpenWindows:
    """Sums of windows that are not over, ascending by slot."""

    slots: Array
    rows: Array
    sums: Array  # part x field x window

    def plus(self, other: OpenWindows) -> OpenWindows:
        """All of both; windows that are in both are merged."""
        slots = np.union1d(self.slots, other.slots)
        mine, theirs = self.over(slots), other.over(slots)
        return OpenWindows(slots, mine.rows + theirs.rows, _merged(mine.sums, theirs.sums))

    def only(self, which: Array | slice) -> OpenWindows:
        """Some of them."""
        return OpenWindows(self.slots[which], self.rows[which], self.sums[..., which])

    def over(self, slots: Array) -> OpenWindows:
        """Spread over more slots, with nothing in the new ones."""
        rows, sums = np.zeros(len(slots), np.int64), np.tile(NOTHING[:, None], (self.sums.shape[1], len(slots)))
        places = np.searchsorted(slots, self.slots)
        rows[places], sums[..., places] = self.rows, self.sums
        return OpenWindows(slots, rows, sums)


@np.errstate(over="ignore", invalid="ignore")  # sums of absurd values may be infinite
def sums_of(values: Array, groups: Array, count: int) -> Array:
    """Part x group of values in these groups. NULL, NaN and infinity are no readings."""
    finite = np.isfinite(values)
    if not finite.all():
        values, groups = values[finite], groups[finite]
    sums = np.tile(NOTHING, count)
    sums[N] = np.bincount(groups, minlength=count)
    divisor = np.maximum(sums[N], 1)
    center = np.bincount(groups, values, count) / divisor
    center = (center.view(np.int64) & -(2**27)).view(np.float64)  # near the mean, with so few digits that N * center is exact
    deviations = values - center[groups]
    shift = np.bincount(groups, deviations, count)
    sums[SQUARES] = np.maximum(np.bincount(groups, deviations * deviations, count) - shift * shift / divisor, 0)
    sums[TOTAL], sums[REST] = _exact_sum(sums[N] * center, shift)
    np.minimum.at(sums[LOW], groups, values)
    np.maximum.at(sums[HIGH], groups, values)
    return sums


@np.errstate(over="ignore", invalid="ignore")
def _merged(one: Array, other: Array) -> Array:
    gap = _mean(other) - _mean(one)
    squares = one[SQUARES] + other[SQUARES] + gap * gap * one[N] * other[N] / np.maximum(one[N] + other[N], 1)
    total, rest = _exact_sum(one[TOTAL], other[TOTAL])
    low, high = np.minimum(one[LOW], other[LOW]), np.maximum(one[HIGH], other[HIGH])
    return np.array([one[N] + other[N], total, rest + one[REST] + other[REST], squares, low, high])


def _exact_sum(one: Array, other: Array) -> tuple[Array, Array]:
    """The sum and its rounding error (Knuth's TwoSum), so that the order of additions does not show."""
    total = one + other
    back = total - one
    return total, (one - (total - back)) + (other - back)


def _mean(sums: Array) -> Array:
    mean = (sums[TOTAL] + sums[REST]) / np.maximum(sums[N], 1)
    return np.where(sums[N] > 0, np.clip(mean, sums[LOW], sums[HIGH]), 0.0)


RESULTS: Mapping[str, Callable[[Array], pa.Array[Any]]] = {
    "count": lambda sums: pa.array(sums[N].astype(np.int64)),
    "avg": lambda sums: pa.array(_mean(sums), mask=sums[N] < 1),
    "sum": lambda sums: pa.array(sums[TOTAL] + sums[REST], mask=sums[N] < 1),
    "min": lambda sums: pa.array(sums[LOW], mask=sums[N] < 1),
    "max": lambda sums: pa.array(sums[HIGH], mask=sums[N] < 1),
    # rounding must not make a constant vary
    "std": lambda sums: pa.array(np.sqrt(sums[SQUARES] * (sums[LOW] < sums[HIGH]) / np.maximum(sums[N] - 1, 1)), mask=sums[N] < 2),
}
