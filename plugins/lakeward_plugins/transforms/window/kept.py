"""Windows on a grid while they can still change: rows come in, and what is due comes out.

A window's slot is one number: its key, its place on the grid, and the key that is derived from time, such as the hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from attrs import define, field, frozen

from lakeward import OptionError, Refused
from lakeward.grouping import Array
from lakeward_plugins.transforms.window.clocks import LATE, UPDATE, Clocks, Passing, status
from lakeward_plugins.transforms.window.fields import Fields
from lakeward_plugins.transforms.window.shape import DAY, Calendar, Fixed, Grid
from lakeward_plugins.transforms.window.table import Table

Emit = Literal["on_close", "on_batch", "on_final"]
SHORTEST_DAY, BATCH = DAY * 23 // 24, 2_000_000


@frozen
class Rules:
    """When windows come out, and how much may be held."""

    emit: Emit
    lateness: int
    exact_max: int
    max_open: int
    spill: bool

    def make_room(self, clocks: Clocks, of: Array, ends: Array) -> bool:
        """Close the oldest of too many open windows, by the watermarks of their clocks; True when it did. Or raise `Refused`."""
        excess = len(ends) - self.max_open
        if excess <= 0:
            return False
        if not self.spill:
            raise Refused(
                f"{len(ends)} windows are open, max_open_windows allows {self.max_open}; raise it, group by fewer keys, "
                "lower allowed_lateness_s, or set on_state_overflow: spill"
            )
        oldest = np.argpartition(ends, excess - 1)[:excess]
        np.maximum.at(clocks.marks, of[oldest], ends[oldest] + self.lateness)
        return True


@frozen(eq=False)
class Due:
    """Windows that come out."""

    table: Table
    keys: Array
    derived: Array | None
    """Starts of their hours or days, when these are a part of the group key."""
    starts: Array
    ends: Array
    revisions: Array
    final: Array
    partial: Array


@define(eq=False)
class GridWindows:
    """Tumbling, hopping or calendar windows."""

    grid: Grid
    derived: Calendar | None
    rules: Rules
    clocks: Clocks
    table: Table
    _parts: int = field(init=False, default=1)
    _passing: Passing = field(init=False)
    _touched: Table = field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.derived:
            self._parts = (self.grid.longest // SHORTEST_DAY + 2) * self.derived.parts
        if (self.rules.max_open + BATCH) * self.grid.count * self._parts >= 2**63:
            raise OptionError("window.size", "such short windows cannot be grouped by hour or day; make them longer")

    def add(self, fields: Fields, keys: Array) -> Array:
        """Take rows in; says which are too late for all their windows."""
        clocks, newest = self.clocks.of(keys), self.grid.newest(fields.times)
        first_ends = self.grid.ends(newest - (self.grid.overlap - 1))
        watermarks = self.clocks.before(clocks, fields.times, first_ends)
        touched = self.table.only(np.zeros(len(self.table), np.bool_))
        for part in self._cut(fields, keys, newest, watermarks, first_ends > watermarks):
            touched = touched.plus(part, self.rules.exact_max)
        self._touched = touched
        self.table = self.table.plus(touched, self.rules.exact_max)
        self._passing = self.clocks.advance(clocks, fields.times)
        return np.asarray(self.grid.ends(newest) + self.rules.lateness <= watermarks)

    def _cut(self, fields: Fields, keys: Array, newest: Array, watermarks: Array, calm: Array) -> Iterator[Table]:
        """The rows as parts of windows. `calm` are those that are on time in all of theirs."""
        left = np.ones(len(newest), np.bool_)
        if isinstance(self.grid, Fixed) and self.grid.overlap > 1 and self.derived is None and calm.any():
            yield from self._panes(self.grid, fields.take(np.flatnonzero(calm)), keys[calm])
            left = ~calm
        for step in range(self.grid.overlap):
            numbers = newest - step
            judged = status(self.grid.ends(numbers), self.rules.lateness, watermarks)
            taken = left & (judged != LATE)
            if self.grid.overlap > 1:
                taken &= self.grid.ends(numbers) > fields.times  # of windows whose size is no multiple of `every`
            if taken.all():
                yield Table.of(fields, self._slots(keys, numbers, fields.times), judged == UPDATE if not calm.all() else None)
            elif taken.any():
                some = fields.take(np.flatnonzero(taken))
                yield Table.of(some, self._slots(keys[taken], numbers[taken], some.times), judged[taken] == UPDATE)

    def _panes(self, grid: Fixed, fields: Fields, keys: Array) -> Iterator[Table]:
        """Rows are summed up once, in the longest pieces that are never cut by a window, and the pieces go into each window."""
        width = math.gcd(grid.longest, grid.every)
        panes = Fixed(width, width, grid.zero, (grid.count + grid.overlap + 1) * (grid.every // width), 1)
        table = Table.of(fields, keys * panes.count + panes.newest(fields.times))
        of, pane = np.divmod(table.slots, panes.count)
        begin = panes.starts(pane)
        for step in range(grid.overlap):
            numbers = grid.newest(begin) - step
            inside = grid.ends(numbers) > begin
            yield table.only(inside).moved((of * grid.count + numbers)[inside], self.rules.exact_max)

    def _slots(self, keys: Array, numbers: Array, times: Array) -> Array:
        slots = keys * self.grid.count + numbers
        if self.derived is None:
            return np.asarray(slots)
        return np.asarray(slots * self._parts + self.derived.newest(times) - self.derived.newest(self.grid.starts(numbers)))

    def keys(self) -> Array:
        """Of the windows that are open."""
        return np.asarray(self.table.slots // (self.grid.count * self._parts))

    def renumber(self, numbers: Array) -> None:
        """Keys have other numbers now."""
        keys, rest = np.divmod(self.table.slots, self.grid.count * self._parts)
        self.table = self.table.moved(numbers[keys] * self.grid.count * self._parts + rest, self.rules.exact_max)

    def finish(self, watermark: int | None) -> None:
        """No row before the watermark will come; None says that no row at all will."""
        none = np.zeros(0, np.int64)
        self._touched = self.table.only(np.zeros(len(self.table), np.bool_))
        self._passing = self.clocks.advance(none, none)
        if watermark is None:
            keys, numbers, _ = self._places(self.table.slots)
            np.maximum.at(self.clocks.marks, self.clocks.of(keys), self.grid.ends(numbers) + self.rules.lateness)
        else:
            self.clocks.raise_to(watermark)

    def due(self) -> Due:
        """What is to come out after that; windows that cannot change any more are forgotten."""
        table, rules, lateness = self.table, self.rules, self.rules.lateness
        keys, numbers, derived = self._places(table.slots)
        clocks, ends = self.clocks.of(keys), self.grid.ends(numbers)
        can_change = ends + lateness > self.clocks.marks[clocks]
        if rules.make_room(self.clocks, clocks[can_change], ends[can_change]):
            can_change = ends + lateness > self.clocks.marks[clocks]
        over, was_over = ends <= self.clocks.marks[clocks], ends <= self._passing.marks[clocks]
        touched, updated = np.zeros(len(table), np.bool_), np.zeros(len(table), np.bool_)
        places = np.searchsorted(table.slots, self._touched.slots)
        touched[places], updated[places] = True, self._touched.updates > 0
        closed = over & ~was_over
        chosen = {"on_close": over & (touched | closed), "on_batch": touched | closed, "on_final": ~can_change}[rules.emit]
        picked = np.flatnonzero(chosen)
        final = ~can_change[picked]
        if lateness and rules.emit != "on_final":
            final &= ~updated[picked]
            here = picked[final]
            final[final] = self._passing.at_once(clocks[here], ends[here], ends[here] + lateness)
        due = Due(
            table.only(chosen), keys[picked], None if derived is None else derived[picked], self.grid.starts(numbers[picked]), ends[picked],
            self._revisions(picked, over), final, ~over[picked],
        )  # fmt: skip
        if not can_change.all():
            self.table = table.only(can_change)
        return due

    def _revisions(self, picked: Array, over: Array) -> Array:
        """How many rows have changed the window since it first came out; with partial windows each of them and the end count."""
        rows, updates = self.table.rows[picked], self.table.updates[picked]
        if self.rules.emit == "on_final":
            return np.zeros(len(picked), np.int64)
        if self.rules.emit == "on_batch":
            return np.asarray(rows - 1 + (over[picked] & (updates < rows)))
        return np.asarray(np.minimum(updates, rows - 1))

    def _places(self, slots: Array) -> tuple[Array, Array, Array | None]:
        """Key, number on the grid, and start of the derived key of each slot."""
        if self.derived is None:
            keys, numbers = np.divmod(slots, self.grid.count)
            return keys, numbers, None
        slots, part = np.divmod(slots, self._parts)
        keys, numbers = np.divmod(slots, self.grid.count)
        return keys, numbers, self.derived.starts(self.derived.newest(self.grid.starts(numbers)) + part)
