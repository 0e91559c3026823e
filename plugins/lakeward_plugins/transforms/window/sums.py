"""Counts, sums, means, deviations and extremes: what is known of each measure in each window, and how two parts of it become one.

Means and deviations are merged as in Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983): sums of squares
lose all digits when values are large and their spread is small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from attrs import frozen

from lakeward.grouping import Array

# What is known of a measure in a window. REST is what rounding cut off from TOTAL, SQUARES the squared deviations from the mean.
PARTS = N, TOTAL, REST, SQUARES, LOW, HIGH = range(6)
NOTHING = np.array([0, 0, 0, 0, np.inf, -np.inf])[:, None]
LEAST_LENGTH = 1e-6  # of the mean of unit vectors: shorter ones have no direction


@frozen(eq=False)
class Sums:
    """Of each window."""

    parts: Array  # part x measure x window

    @classmethod
    def nothing(cls, measures: int, count: int = 0) -> Sums:
        """Of windows without a value."""
        return cls(np.tile(NOTHING[:, None], (measures, count)))

    @classmethod
    def of(cls, columns: Sequence[Array], groups: Array, count: int) -> Sums:
        """From rows, each in one of the groups 0 to `count`."""
        out = cls.nothing(len(columns), count)
        for place, column in enumerate(columns):
            out.parts[:, place] = sums_of(column, groups, count)
        return out

    def take(self, places: Array) -> Sums:
        """Of some windows."""
        return Sums(self.parts[..., places])

    def put(self, places: Array, other: Sums) -> None:
        """Replace some."""
        self.parts[..., places] = other.parts

    def spread(self, places: Array, count: int) -> Sums:
        """Among more windows, with nothing in the others."""
        parts = np.empty((len(PARTS), self.parts.shape[1], count))
        fresh = np.ones(count, np.bool_)
        fresh[places] = False
        parts[..., places], parts[..., fresh] = self.parts, NOTHING[:, None]
        return Sums(parts)

    @np.errstate(over="ignore", invalid="ignore")
    def merged(self, other: Sums) -> Sums:
        """Of both, window by window."""
        one, two = self.parts, other.parts
        near = _short(_mean(one))  # means of large values differ in digits that they do not have
        gap = np.where((one[N] > 0) & (two[N] > 0), _mean_above(two, near) - _mean_above(one, near), 0)
        squares = one[SQUARES] + two[SQUARES] + gap * gap * one[N] * two[N] / np.maximum(one[N] + two[N], 1)
        total, rest = _exact_sum(one[TOTAL], two[TOTAL])
        low, high = np.minimum(one[LOW], two[LOW]), np.maximum(one[HIGH], two[HIGH])
        return Sums(np.array([one[N] + two[N], total, rest + one[REST] + two[REST], squares, low, high]))

    def saved(self) -> list[pa.RecordBatch]:
        """For the state."""
        columns = [pa.array(values) for part in self.parts for values in part]
        return [pa.record_batch(columns, list(map(str, range(len(columns)))))]

    @classmethod
    def restored(cls, saved: pa.RecordBatch, measures: int, count: int) -> Sums:
        """From the state."""
        return cls(np.array([column.to_numpy() for column in saved.columns], np.float64).reshape(len(PARTS), measures, count))


@np.errstate(over="ignore", invalid="ignore")  # sums of absurd values may be infinite
def sums_of(values: Array, groups: Array, count: int) -> Array:
    """Part x group of values in these groups. NaN and infinity are no readings."""
    finite = np.isfinite(values)
    if not finite.all():
        values, groups = values[finite], groups[finite]
    sums = np.tile(NOTHING, count)
    sums[N] = np.bincount(groups, minlength=count)
    divisor = np.maximum(sums[N], 1)
    center = _short(np.bincount(groups, values, count) / divisor)
    deviations = values - center[groups]
    shift = np.bincount(groups, deviations, count)
    sums[SQUARES] = np.maximum(np.bincount(groups, deviations * deviations, count) - shift * shift / divisor, 0)
    sums[TOTAL], sums[REST] = _exact_sum(sums[N] * center, shift)
    np.minimum.at(sums[LOW], groups, values)
    np.maximum.at(sums[HIGH], groups, values)
    return sums


def _exact_sum(one: Array, other: Array) -> tuple[Array, Array]:
    """The sum and its rounding error (Knuth's TwoSum), so that the order of additions does not show."""
    total = one + other
    back = total - one
    return total, (one - (total - back)) + (other - back)


def _mean(sums: Array) -> Array:
    mean = (sums[TOTAL] + sums[REST]) / np.maximum(sums[N], 1)
    return np.where(sums[N] > 0, np.clip(mean, sums[LOW], sums[HIGH]), 0.0)


def _mean_above(sums: Array, center: Array) -> Array:
    return np.asarray((sums[TOTAL] - sums[N] * center + sums[REST]) / np.maximum(sums[N], 1))


def _short(means: Array) -> Array:
    """Near the means, with so few digits that N * mean is exact."""
    return (means.view(np.int64) & -(2**27)).view(np.float64)


def _squares(sums: Array) -> Array:
    # rounding must not make a constant vary
    return np.asarray(sums[SQUARES] * (sums[LOW] < sums[HIGH]))


def _variance(sums: Array) -> Array:
    return np.asarray(_squares(sums) / np.maximum(sums[N] - 1, 1))


def _range(sums: Array) -> Array:
    with np.errstate(over="ignore"):  # from one end of the numbers to the other is infinitely far
        return np.asarray(np.where(sums[N] > 0, sums[HIGH] - sums[LOW], 0))


RESULTS: Mapping[str, Callable[[Array], pa.Array[Any]]] = {
    "count": lambda sums: pa.array(sums[N].astype(np.int64)),
    "avg": lambda sums: pa.array(_mean(sums), mask=sums[N] < 1),
    "sum": lambda sums: pa.array(sums[TOTAL] + sums[REST], mask=sums[N] < 1),
    "min": lambda sums: pa.array(sums[LOW], mask=sums[N] < 1),
    "max": lambda sums: pa.array(sums[HIGH], mask=sums[N] < 1),
    "range": lambda sums: pa.array(_range(sums), mask=sums[N] < 1),
    "var": lambda sums: pa.array(_variance(sums), mask=sums[N] < 2),
    "std": lambda sums: pa.array(np.sqrt(_variance(sums)), mask=sums[N] < 2),
}
"""From what is known of the values of a field, part x window."""


def circular(function: str, sines: Array, cosines: Array) -> pa.Array[Any]:
    """Of angles in degrees, from the sums of their sines and cosines; the mean vector has length R.

    circ_mean is atan2(mean sine, mean cosine), from 0 up to 360; circ_std is sqrt(-2 ln R) (Mardia 1972); yamartino is
    asin(e) (1 + (2 / sqrt 3 - 1) e^3) with e^2 = 1 - R^2 (Yamartino 1984). NULL where R is below a millionth, except circ_r and yamartino.
    Since sine^2 + cosine^2 = 1, e^2 is also the variance of the sines and the cosines: of directions that are near each other it has all
    digits, where 1 - R^2 has lost them.
    """
    (sine, cosine), none = (_mean(sines), _mean(cosines)), sines[N] < 1
    length = np.minimum(np.hypot(sine, cosine), 1)
    vague = none | (length < LEAST_LENGTH)
    spread = np.clip((_squares(sines) + _squares(cosines)) / np.maximum(sines[N], 1), 0, 1)
    degrees, unclear = length, none
    if function == "circ_mean":
        degrees, unclear = np.degrees(np.arctan2(sine, cosine)) % 360, vague
        degrees = np.where(degrees == 360, 0, degrees)
    elif function == "circ_std":
        logarithm = np.where(spread < 0.5, np.log1p(-np.minimum(spread, 0.5)), 2 * np.log(np.where(vague, 1, length)))  # of R^2
        degrees, unclear = np.degrees(np.sqrt(-logarithm)), vague
    elif function == "yamartino":
        epsilon = np.sqrt(spread)
        degrees = np.degrees(np.arcsin(epsilon) * (1 + (2 / np.sqrt(3) - 1) * epsilon**3))
    return pa.array(degrees, pa.float64(), mask=unclear)
