"""Watermarks: the time before which no row is expected any more, for each group key or for all of them.

A row is judged by the watermark that stood before it: the newest time before it, less `wait`, and never back. So what is late does not
depend on how the rows were cut into batches. With `idle`, a key that says nothing is taken to be at most `idle` behind the newest of all.
"""

from __future__ import annotations

import numpy as np
from attrs import define, field, frozen

from lakeward.grouping import NEVER, Array, running_maximum, starts

ON_TIME, UPDATE, LATE = range(3)


def status(ends: Array, lateness: int, watermarks: Array) -> Array:
    """ON_TIME, UPDATE (the window is over, but can still change) or LATE, for rows of windows that end then."""
    return np.where(ends > watermarks, ON_TIME, np.where(ends + lateness > watermarks, UPDATE, LATE)).astype(np.int8)


@define(eq=False)
class Clocks:
    """The watermark of each clock; a clock is a group key, or with `shared` there is one for all."""

    wait: int
    shared: bool
    idle: int | None
    marks: Array = field(init=False)
    base: int = NEVER
    """The watermark of clocks that are not known yet."""
    newest: int = NEVER
    """The newest time of all."""

    def __attrs_post_init__(self) -> None:
        self.marks = np.full(1 if self.shared else 0, NEVER, np.int64)

    def of(self, keys: Array) -> Array:
        """Which clock each key looks at."""
        return np.zeros_like(keys) if self.shared else keys

    def grow(self, keys: int) -> None:
        """So many keys are known now."""
        if not self.shared:
            self.marks = np.concatenate([self.marks, np.full(keys - len(self.marks), self._floor(self.newest))])

    def ahead(self, keys: int) -> Array:
        """Which of so many keys have a watermark that they would not have if they were new."""
        return np.zeros(keys, np.bool_) if self.shared else np.asarray(self.marks > self._floor(self.newest))

    def keep(self, keys: Array) -> None:
        """Only those keys are still known."""
        if not self.shared:
            self.marks = self.marks[keys]

    def raise_to(self, watermark: int) -> None:
        """No row before it will come."""
        self.base = max(self.base, watermark)
        self.marks = np.maximum(self.marks, self.base)

    def before(self, clocks: Array, micros: Array, moments: Array) -> Array:
        """The watermark before each row. It is exact where it is at or after the row's moment; elsewhere it is before that moment too.

        A row never passes its own window, so it may count itself.
        """
        # the newest time of all clocks is no older than that of the row's clock: who is not late by it is not late
        newest = np.maximum.accumulate(np.append(self.newest, micros))[1:]
        bound = np.maximum(newest - self.wait, self.marks[clocks])
        doubtful = moments <= bound
        if not doubtful.any() or self.shared:
            return np.asarray(bound)
        rows = np.flatnonzero(np.isin(clocks, clocks[doubtful]))
        rows = rows[np.argsort(clocks[rows], kind="stable")]
        own = running_maximum(clocks[rows], micros[rows]) - self.wait
        bound[rows] = np.maximum(np.maximum(own, self.marks[clocks[rows]]), self._floor(newest[rows]))
        return np.asarray(bound)

    def advance(self, clocks: Array, micros: Array) -> Passing:
        """Take the rows into account; says which of them passed which moment."""
        passing = Passing(
            clocks, micros, self.wait, self.idle, np.maximum.accumulate(np.append(self.newest, micros))[1:], self.marks.copy()
        )
        np.maximum.at(self.marks, clocks, micros - self.wait)
        if len(micros):
            self.newest = int(passing.newest[-1])
            self.marks = np.maximum(self.marks, self._floor(self.newest))
        return passing

    def _floor(self, newest: Array | int) -> Array | int:
        """The least watermark that any clock can have."""
        return self.base if self.idle is None else np.maximum(newest - self.idle - self.wait, self.base)


@frozen(eq=False)
class Passing:
    """The rows of one batch, as they moved the watermarks, and the watermarks as they were."""

    clocks: Array
    micros: Array
    wait: int
    idle: int | None
    newest: Array
    marks: Array

    def at_once(self, clocks: Array, first: Array, second: Array) -> Array:
        """Whether the row with which a clock passed the first moment made it pass the second one as well."""
        if not len(clocks) or not len(self.clocks):
            return np.ones(len(clocks), np.bool_)
        return np.asarray(self._row(clocks, first) == self._row(clocks, second))

    def _row(self, clocks: Array, moments: Array) -> Array:
        """Number of the first row after which the watermark of the clock is at the moment or later; one more than there are if none."""
        order = np.argsort(self.clocks, kind="stable")
        groups = self.clocks[order]
        newest = running_maximum(groups, self.micros[order])
        distinct = np.unique(np.concatenate([newest, moments + self.wait]))
        group_of, width = np.cumsum(starts(groups)) - 1, len(distinct) + 1
        known = groups[starts(groups)]
        lifted = group_of * width + np.searchsorted(distinct, newest)
        group = np.searchsorted(known, clocks)
        place = np.searchsorted(lifted, group * width + np.searchsorted(distinct, moments + self.wait))
        own = np.minimum(place, len(order) - 1)
        none = (place >= len(order)) | (groups[own] != clocks)
        rows = np.where(none, len(order), order[own])
        if self.idle is not None:
            rows = np.minimum(rows, np.searchsorted(self.newest, moments + self.wait + self.idle))
        return np.asarray(rows)
