"""How often each value came in each window: for modes, for exact quantiles and, with bins as values, for quantiles of many rows."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from attrs import frozen

from lakeward.grouping import Array, starts
from lakeward_plugins.transforms.window import ddsketch


@frozen(eq=False)
class Tally:
    """Values with their counts, ascending by slot and value."""

    kind: Literal["quantile", "mode"]
    slots: Array
    values: Array
    """Doubles, or text as Python objects."""
    counts: Array
    spent: Array
    """Slots with too many values, ascending: for quantiles those whose values are bins, for modes those of which nothing is kept."""

    @classmethod
    def nothing(cls, kind: Literal["quantile", "mode"], text: bool = False) -> Tally:
        """Of no window."""
        none = np.zeros(0, np.int64)
        return cls(kind, none, np.zeros(0, object if text else np.float64), none, none)

    @classmethod
    def of(cls, kind: Literal["quantile", "mode"], values: Array, slots: Array) -> Tally:
        """Of rows with a number; minus zero is zero."""
        none = np.zeros(0, np.int64)
        return cls(kind, *_counted(slots, values + 0.0, np.ones(len(slots), np.int64)), none)

    @classmethod
    def of_text(cls, column: pa.Array[Any], slots: Array) -> Tally:
        """Of rows with a text, for modes."""
        encoded = column.dictionary_encode()
        distinct, ranks = np.unique(np.array(encoded.dictionary.to_pylist(), object), return_inverse=True)
        counted = cls.of("mode", ranks[encoded.indices.to_numpy()].astype(np.float64), slots)
        return cls("mode", counted.slots, distinct[counted.values.astype(np.int64)], counted.counts, counted.spent)

    def plus(self, other: Tally, crowded: Array, limit: int) -> Tally:
        """Of both. Windows in `crowded` have more rows than `limit`; modes look at distinct values instead."""
        spent = np.union1d(self.spent, other.spent)
        if self.kind == "quantile":
            spent = np.union1d(spent, crowded)
        mine, theirs = self._spend(spent), other._spend(spent)
        touched = _among(mine.slots, theirs.slots)
        pairs = [(mine.slots, theirs.slots), (mine.values, theirs.values), (mine.counts, theirs.counts)]
        slots, values, counts = (np.concatenate([old[touched], new]) for old, new in pairs)
        mixed = _counted(slots, values, counts)
        columns = [np.concatenate([old[~touched], new]) for (old, _), new in zip(pairs, mixed, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        both = Tally(self.kind, columns[0][order], columns[1][order], columns[2][order], spent)
        if self.kind == "mode":
            owners, distinct = np.unique(both.slots, return_counts=True)
            return both._spend(np.union1d(spent, owners[distinct > limit]))
        return both

    def _spend(self, spent: Array) -> Tally:
        fresh = _among(self.slots, spent) & ~_among(self.slots, self.spent)
        if not fresh.any():
            return self if len(spent) == len(self.spent) else Tally(self.kind, self.slots, self.values, self.counts, spent)
        if self.kind == "mode":
            return Tally(self.kind, self.slots[~fresh], self.values[~fresh], self.counts[~fresh], spent)
        values = self.values.copy()
        values[fresh] = ddsketch.bins(values[fresh])
        return Tally(self.kind, *_counted(self.slots, values, self.counts), spent)

    def only(self, slots: Array) -> Tally:
        """Of these windows."""
        kept = _among(self.slots, slots)
        return Tally(self.kind, self.slots[kept], self.values[kept], self.counts[kept], self.spent[_among(self.spent, slots)])

    def moved(self, old: Array, new: Array) -> Tally:
        """Windows get other slots; those that get the same one are merged."""
        spent = np.unique(new[np.searchsorted(old, self.spent)])
        aligned = self._spend(old[_among(new, spent)])  # a window of bins takes up one of values
        return Tally(self.kind, *_counted(new[np.searchsorted(old, aligned.slots)], aligned.values, aligned.counts), spent)

    def quantiles(self, slots: Array, part: float) -> pa.Array[Any]:
        """For each window the value that this part of its values is below: between two values in proportion, or of the lower one's bin."""
        low, high = np.searchsorted(self.slots, slots, "left"), np.searchsorted(self.slots, slots, "right")
        up_to = np.append(0, np.cumsum(self.counts))
        totals = up_to[high] - up_to[low]
        rank = (totals - 1) * part
        known = totals > 0
        below, above = (self._at(up_to, low, rounded(rank), known) for rounded in (np.floor, np.ceil))
        with np.errstate(over="ignore", invalid="ignore"):
            exact = below + (above - below) * (rank - np.floor(rank))
        bins = _among(slots, self.spent)
        return pa.array(np.where(bins, ddsketch.values(np.where(bins, below, 0)), exact), mask=~known)

    def _at(self, up_to: Array, low: Array, ranks: Array, known: Array) -> Array:
        """The values at these ranks, counted from 0, of windows that begin at the places `low`."""
        if not known.any():
            return np.zeros(len(low))
        place = np.searchsorted(up_to, up_to[low] + ranks, "right") - 1
        return np.asarray(self.values[np.where(known, place, 0)])

    def modes(self, slots: Array) -> pa.Array[Any]:
        """For each window the most frequent value, of equally frequent ones the least; NULL where too many were seen."""
        kind = pa.string() if self.values.dtype == object else pa.float64()
        order = np.lexsort((-self.counts, self.slots))  # stable: values stay ascending
        best = order[starts(self.slots[order])]
        owners = self.slots[best]
        place = np.minimum(np.searchsorted(owners, slots), max(len(owners) - 1, 0))
        known = (owners[place] == slots) if len(owners) else np.zeros(len(slots), np.bool_)
        return pa.array(self.values[best], kind).take(pa.array(place, pa.int64(), mask=~known))

    def saved(self) -> list[pa.RecordBatch]:
        """For the state."""
        values = pa.array(self.values, pa.string() if self.values.dtype == object else pa.float64())
        held = pa.record_batch([pa.array(self.slots), values, pa.array(self.counts)], ["slot", "value", "count"])
        return [held, pa.record_batch([pa.array(self.spent)], ["spent"])]

    @classmethod
    def restored(cls, kind: Literal["quantile", "mode"], held: pa.RecordBatch, spent: pa.RecordBatch) -> Tally:
        """From the state."""
        slots, values, counts = (column.to_numpy(zero_copy_only=False).copy() for column in held.columns)
        return cls(kind, slots, values, counts, spent.column(0).to_numpy().copy())


def _among(slots: Array, sorted_slots: Array) -> Array:
    """Which of the slots are among the others, which ascend."""
    if not len(sorted_slots):
        return np.zeros(len(slots), np.bool_)
    place = np.minimum(np.searchsorted(sorted_slots, slots), len(sorted_slots) - 1)
    return np.asarray(sorted_slots[place] == slots)


def _counted(slots: Array, values: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Each pair of slot and value once, with the sum of its counts, ascending."""
    ranks = np.unique(values, return_inverse=True)[1] if values.dtype == object else values
    order = np.lexsort((ranks, slots))
    slots, ranks = slots[order], ranks[order]
    edges = np.flatnonzero(starts(slots) | starts(ranks))
    sums = np.add.reduceat(counts[order], edges) if len(edges) else counts[:0]
    return slots[edges], values[order][edges], sums
