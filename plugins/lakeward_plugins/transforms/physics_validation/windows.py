"""Ranges and deviations of many windows at once: of values that lie one after another, window `[first, last]` each.

Both build tables of blocks of 1, 2, 4, ... values, as far as windows need them, and put each window together from blocks. What comes
out for a window depends on its own values only, to the last bit: so it does not show how rows were cut into batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import define, field

from lakeward.grouping import Array

Block = tuple[Array, Array, Array]


def first_later(times: Array, first: Array, last: Array, limits: Array) -> Array:
    """For each window the first place whose time is later than its limit, one behind `last` if there is none; times ascend in a window."""
    low, high = first.copy(), last + 1
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        later = times[np.minimum(middle, len(times) - 1)] > limits
        going = low < high
        high = np.where(going & later, middle, high)
        low = np.where(going & ~later, middle + 1, low)
    return np.asarray(low)


@np.errstate(over="ignore")  # of absurd values
def spread(low: Array, high: Array) -> Array:
    """From the least to the greatest; negative for a window without values."""
    return np.asarray(high - low)


@define(eq=False)
class Extremes:
    """The least and the greatest value of windows. Two blocks cover a window, they may overlap."""

    values: Array
    """NaN counts as no value."""
    _low: list[Array] = field(init=False)
    _high: list[Array] = field(init=False)

    def __attrs_post_init__(self) -> None:
        missing = np.isnan(self.values)
        self._low = [np.where(missing, np.inf, self.values)]
        self._high = [np.where(missing, -np.inf, self.values)]

    def over(self, first: Array, last: Array) -> tuple[Array, Array]:
        """Infinite, the wrong way round, for a window without values."""
        level = np.frexp((last - first + 1).astype(np.float64))[1] - 1  # of the largest block that fits
        low, high = np.empty(len(first)), np.empty(len(first))
        for size in np.unique(level).tolist():
            self._reach(size)
            which = np.flatnonzero(level == size)
            one, other = first[which], last[which] + 1 - (1 << size)
            low[which] = np.minimum(self._low[size][one], self._low[size][other])
            high[which] = np.maximum(self._high[size][one], self._high[size][other])
        return low, high

    def _reach(self, level: int) -> None:
        while len(self._low) <= level:
            half = 1 << (len(self._low) - 1)
            self._low.append(np.minimum(self._low[-1][:-half], self._low[-1][half:]))
            self._high.append(np.maximum(self._high[-1][:-half], self._high[-1][half:]))


@define(eq=False)
class Deviations:
    """The standard deviation of windows, of the values as a whole population (ddof = 0).

    Blocks are merged as in Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983).
    """

    values: Array
    """NaN counts as no value."""
    _blocks: list[Block] = field(init=False)  # number of values, mean, squared deviations from it

    def __attrs_post_init__(self) -> None:
        there = ~np.isnan(self.values)
        self._blocks = [(there.astype(np.float64), np.where(there, self.values, 0.0), np.zeros(len(self.values)))]

    def over(self, first: Array, last: Array) -> Array:
        """NaN for a window without values."""
        length, place = last - first + 1, first.copy()
        sums: Block = (np.zeros(len(first)), np.zeros(len(first)), np.zeros(len(first)))
        for level in range(int(length.max(initial=0)).bit_length()):
            which = np.flatnonzero(length >> level & 1)
            found = _merged(_at(sums, which), _at(self._block(level), place[which]))
            for part, values in zip(sums, found, strict=True):
                part[which] = values
            place[which] += 1 << level
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(np.where(sums[0] > 0, sums[2], np.nan) / np.maximum(sums[0], 1)))

    def _block(self, level: int) -> Block:
        while len(self._blocks) <= level:
            half, blocks = 1 << (len(self._blocks) - 1), self._blocks[-1]
            self._blocks.append(_merged(_at(blocks, slice(None, -half)), _at(blocks, slice(half, None))))
        return self._blocks[level]


def _at(block: Block, where: Any) -> Block:
    return block[0][where], block[1][where], block[2][where]


@np.errstate(over="ignore", invalid="ignore")  # deviations of absurd values may be infinite
def _merged(one: Block, other: Block) -> Block:
    count = one[0] + other[0]
    share = other[0] / np.maximum(count, 1)
    gap = other[1] - one[1]
    return count, one[1] + gap * share, one[2] + other[2] + gap * one[0] * share * gap
