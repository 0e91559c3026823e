"""Values with their times in each window, for means that weigh a value by how long it held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from attrs import frozen

from lakeward.grouping import Array


@frozen(eq=False)
class Readings:
    """Ascending by slot, time and row."""

    slots: Array
    times: Array
    rows: Array
    values: Array
    spent: Array
    """Slots with too many rows, ascending, of which nothing is kept."""

    @classmethod
    def nothing(cls) -> Readings:
        """Of no window."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, np.zeros(0), none)

    @classmethod
    def of(cls, values: Array, times: Array, rows: Array, slots: Array) -> Readings:
        """Of rows with a value."""
        return cls(*_ordered(slots, times, rows, values), np.zeros(0, np.int64))

    def plus(self, other: Readings, crowded: Array) -> Readings:
        """Of both; of windows in `crowded` nothing is kept."""
        spent = np.unique(np.concatenate([self.spent, other.spent, crowded]))
        pairs = zip(self._columns(), other._columns(), strict=True)
        both = Readings(*_ordered(*(np.concatenate(pair) for pair in pairs)), spent)
        return both._kept(~np.isin(both.slots, spent)) if len(spent) else both

    def only(self, slots: Array) -> Readings:
        """Of these windows."""
        return Readings(*self._kept(np.isin(self.slots, slots))._columns(), self.spent[np.isin(self.spent, slots)])

    def moved(self, old: Array, new: Array) -> Readings:
        """Windows get other slots; those that get the same one are merged."""
        spent = np.unique(new[np.searchsorted(old, self.spent)])
        slots = new[np.searchsorted(old, self.slots)]
        moved = Readings(*_ordered(slots, self.times, self.rows, self.values), spent)
        return moved._kept(~np.isin(moved.slots, spent))

    def weighted(self, slots: Array, ends: Array) -> pa.Array[Any]:
        """For each window the mean of its values, each weighted by the time until the next one, the last until the end of the window."""
        if not len(slots):
            return pa.array([], pa.float64())
        order = np.argsort(slots)
        here = np.isin(self.slots, slots)
        places = order[np.searchsorted(slots, self.slots[here], sorter=order)]
        times, values = self.times[here], self.values[here]
        same = np.append(places[1:] == places[:-1], np.zeros(min(1, len(places)), np.bool_))
        until = np.where(same, np.append(times[1:], times[:1] * 0), ends[places])
        lengths = (until - times).astype(np.float64)
        total = np.bincount(places, lengths, len(slots))
        known = total > 0
        center = np.bincount(places, values * lengths, len(slots)) / np.where(known, total, 1)
        rest = np.bincount(places, (values - center[places]) * lengths, len(slots)) / np.where(known, total, 1)
        return pa.array(center + rest, mask=~known)

    def saved(self) -> list[pa.RecordBatch]:
        """For the state."""
        held = pa.record_batch([pa.array(column) for column in self._columns()], ["slot", "time", "row", "value"])
        return [held, pa.record_batch([pa.array(self.spent)], ["spent"])]

    @classmethod
    def restored(cls, held: pa.RecordBatch, spent: pa.RecordBatch) -> Readings:
        """From the state."""
        return cls(*(column.to_numpy().copy() for column in (*held.columns, *spent.columns)))

    def _columns(self) -> tuple[Array, Array, Array, Array]:
        return self.slots, self.times, self.rows, self.values

    def _kept(self, which: Array) -> Readings:
        return Readings(self.slots[which], self.times[which], self.rows[which], self.values[which], self.spent)


def _ordered(slots: Array, times: Array, rows: Array, values: Array) -> tuple[Array, Array, Array, Array]:
    order = np.lexsort((rows, times, slots))
    return slots[order], times[order], rows[order], values[order]
