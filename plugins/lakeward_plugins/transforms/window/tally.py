"""How often each value came in each window: for modes, for exact quantiles and, with bins as values, for quantiles of many rows."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from attrs import evolve, field, frozen

from lakeward.grouping import Array, starts
from lakeward_plugins.transforms.window import ddsketch

Kind = Literal["quantile", "mode"]
NONE = np.zeros(0, np.int64)


@frozen(eq=False)
class Counted:
    """Slots, values and counts, side by side."""

    slots: Array
    values: Array
    """Doubles, or text as Python objects."""
    counts: Array

    @classmethod
    def nothing(cls, text: bool = False) -> Counted:
        """No value."""
        return cls(NONE, np.zeros(0, object if text else np.float64), NONE)

    def __len__(self) -> int:
        return len(self.slots)

    def only(self, which: Array) -> Counted:
        """Some of them."""
        return Counted(self.slots[which], self.values[which], self.counts[which])

    def with_(self, other: Counted) -> Counted:
        """These, and then the others."""
        pairs = [(self.slots, other.slots), (self.values, other.values), (self.counts, other.counts)]
        return Counted(*(np.concatenate(pair) for pair in pairs))

    def summed(self) -> Counted:
        """Each pair of slot and value once, with the sum of its counts, ascending."""
        ranks = np.unique(self.values, return_inverse=True)[1] if self.values.dtype == object else self.values
        order = np.lexsort((ranks, self.slots))
        slots, ranks = self.slots[order], ranks[order]
        edges = np.flatnonzero(starts(slots) | starts(ranks))
        sums = np.add.reduceat(self.counts[order], edges) if len(edges) else self.counts[:0]
        return Counted(slots[edges], self.values[order][edges], sums)

    def saved(self) -> pa.RecordBatch:
        """For the state."""
        values = pa.array(self.values, pa.string() if self.values.dtype == object else pa.float64())
        return pa.record_batch([pa.array(self.slots), values, pa.array(self.counts)], ["slot", "value", "count"])

    @classmethod
    def restored(cls, saved: pa.RecordBatch) -> Counted:
        """From the state."""
        return cls(*(column.to_numpy(zero_copy_only=False).copy() for column in saved.columns))


@frozen(eq=False)
class Tally:
    """The values of all windows."""

    kind: Kind
    summed: Counted
    loose: Counted
    """What has come since: it is sorted in when it has become as much as the rest, so that many rows are not sorted with each batch."""
    spent: Array = field(factory=lambda: NONE)
    """Slots with too many values, ascending: for quantiles those whose values are bins, for modes those of which nothing is kept."""

    @classmethod
    def nothing(cls, kind: Kind, text: bool = False) -> Tally:
        """Of no window."""
        return cls(kind, Counted.nothing(text), Counted.nothing(text))

    @classmethod
    def of(cls, kind: Kind, values: Array, slots: Array) -> Tally:
        """Of rows with a number; minus zero is zero."""
        return cls(kind, Counted.nothing(), Counted(slots, values + 0.0, np.ones(len(slots), np.int64)))

    @classmethod
    def of_text(cls, column: pa.Array[Any], slots: Array) -> Tally:
        """Of rows with a text, for modes."""
        encoded = column.dictionary_encode()
        distinct, ranks = np.unique(np.array(encoded.dictionary.to_pylist(), object), return_inverse=True)
        summed = cls.of("mode", ranks[encoded.indices.to_numpy()].astype(np.float64), slots).sorted().summed
        return cls("mode", evolve(summed, values=distinct[summed.values.astype(np.int64)]), Counted.nothing(text=True))

    def plus(self, other: Tally, crowded: Array, limit: int) -> Tally:
        """Of both. Windows in `crowded` have more rows than `limit`; modes look at distinct values instead."""
        spent = np.union1d(self.spent, other.spent)
        if self.kind == "quantile":
            spent = np.union1d(spent, crowded)
        mine, theirs = self._spend(spent), other._spend(spent)
        empty = not len(mine.summed) and not len(mine.loose)
        both = theirs if empty else evolve(mine, loose=mine.loose.with_(theirs.summed).with_(theirs.loose))
        if empty and self.kind == "quantile":
            return both
        if self.kind == "quantile":
            return both.sorted() if len(both.loose) > len(both.summed) else both
        both = both.sorted()
        owners, distinct = np.unique(both.summed.slots, return_counts=True)
        return both._spend(np.union1d(spent, owners[distinct > limit]))

    def sorted(self) -> Tally:
        """With nothing loose."""
        return evolve(self, summed=self.summed.with_(self.loose).summed(), loose=self.loose.only(NONE)) if len(self.loose) else self

    def _spend(self, spent: Array) -> Tally:
        """These slots have too many values."""
        if len(spent) == len(self.spent):
            return self
        parts = []
        for part in (self.summed, self.loose):
            fresh = _among(part.slots, spent) & ~_among(part.slots, self.spent)
            if fresh.any() and self.kind == "mode":
                part = part.only(~fresh)
            elif fresh.any():
                values = part.values.copy()
                values[fresh] = ddsketch.bins(values[fresh])
                part = evolve(part, values=values).summed()  # many values are in few bins
            parts.append(part)
        return Tally(self.kind, parts[0], parts[1], spent)

    def only(self, slots: Array) -> Tally:
        """Of these windows."""
        summed, loose = (part.only(_among(part.slots, slots)) for part in (self.summed, self.loose))
        return Tally(self.kind, summed, loose, self.spent[_among(self.spent, slots)])

    def moved(self, old: Array, new: Array) -> Tally:
        """Windows get other slots; those that get the same one are merged."""
        spent = np.unique(new[np.searchsorted(old, self.spent)])
        whole = self._spend(np.union1d(self.spent, old[_among(new, spent)])).sorted().summed  # a window of bins takes up one of values
        return Tally(self.kind, evolve(whole, slots=new[np.searchsorted(old, whole.slots)]).summed(), self.loose.only(NONE), spent)

    def quantiles(self, slots: Array, part: float) -> pa.Array[Any]:
        """For each window the value that this part of its values is below: between two values in proportion, or of the lower one's bin."""
        held = self.sorted().summed
        low, high = np.searchsorted(held.slots, slots, "left"), np.searchsorted(held.slots, slots, "right")
        up_to = np.append(0, np.cumsum(held.counts))
        totals = up_to[high] - up_to[low]
        rank, known = (totals - 1) * part, totals > 0

        def value_at(ranks: Array) -> Array:
            place = np.searchsorted(up_to, up_to[low] + ranks, "right") - 1
            return np.asarray(held.values[np.where(known, place, 0)]) if known.any() else np.zeros(len(low))

        below, above = value_at(np.floor(rank)), value_at(np.ceil(rank))
        with np.errstate(over="ignore", invalid="ignore"):
            exact = below + (above - below) * (rank - np.floor(rank))
        bins = _among(slots, self.spent)
        return pa.array(np.where(bins, ddsketch.values(np.where(bins, below, 0)), exact), mask=~known)

    def modes(self, slots: Array) -> pa.Array[Any]:
        """For each window the most frequent value, of equally frequent ones the least; NULL where too many were seen."""
        held = self.sorted().summed
        kind = pa.string() if held.values.dtype == object else pa.float64()
        order = np.lexsort((-held.counts, held.slots))  # stable: values stay ascending
        best = order[starts(held.slots[order])]
        known = _among(slots, held.slots[best])
        place = np.searchsorted(held.slots[best], slots)
        return pa.array(held.values[best], kind).take(pa.array(place, pa.int64(), mask=~known))

    def saved(self) -> list[pa.RecordBatch]:
        """For the state."""
        return [self.summed.saved(), self.loose.saved(), pa.record_batch([pa.array(self.spent)], ["spent"])]

    @classmethod
    def restored(cls, kind: Kind, summed: pa.RecordBatch, loose: pa.RecordBatch, spent: pa.RecordBatch) -> Tally:
        """From the state."""
        return cls(kind, Counted.restored(summed), Counted.restored(loose), spent.column(0).to_numpy().copy())


def _among(slots: Array, sorted_slots: Array) -> Array:
    """Which of the slots are among the others, which ascend."""
    if not len(sorted_slots):
        return np.zeros(len(slots), np.bool_)
    place = np.minimum(np.searchsorted(sorted_slots, slots), len(sorted_slots) - 1)
    return np.asarray(sorted_slots[place] == slots)
