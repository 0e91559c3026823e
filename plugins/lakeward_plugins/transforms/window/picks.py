"""The first or last value of a field in each window, by time and then by row; and the least and greatest text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from attrs import frozen

from lakeward.grouping import LETTERS, Array, starts


@frozen(eq=False)
class Picks:
    """For each window the picked value, and the time and row it is from. `known` is false where there was none."""

    kind: str
    """first, last, min or max."""
    known: Array
    times: Array
    rows: Array
    values: Array
    """Doubles, or text as Python objects: few are touched by a batch, one for each of its windows."""

    @classmethod
    def nothing(cls, kind: str, text: bool, count: int = 0) -> Picks:
        """Of windows without a value."""
        values = np.full(count, "", object) if text else np.zeros(count)
        return cls(kind, np.zeros(count, np.bool_), np.zeros(count, np.int64), np.zeros(count, np.int64), values)

    @classmethod
    def of(cls, kind: str, column: pa.Array[Any], times: Array, rows: Array, groups: Array, count: int) -> Picks:
        """From rows, each in one of the groups 0 to `count`; those with NULL do not count."""
        here = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        by = (_ranks(column.take(here)),) if kind in ("min", "max") else (rows[here], times[here])
        order = here[np.lexsort([*by, groups[here]])]
        edges = starts(groups[order])
        if kind in ("last", "max"):
            edges = np.append(edges[1:], np.ones(min(1, len(edges)), np.bool_))
        chosen = order[edges]
        text = any(suits(column.type) for suits in LETTERS)
        found = column.take(chosen)
        values = np.array(found.to_pylist(), object) if text else found.to_numpy(zero_copy_only=False)
        out = cls.nothing(kind, text, count)
        out.put(groups[chosen], cls(kind, np.ones(len(chosen), np.bool_), times[chosen], rows[chosen], values))
        return out

    def take(self, places: Array) -> Picks:
        """Of some windows."""
        return Picks(self.kind, self.known[places], self.times[places], self.rows[places], self.values[places])

    def put(self, places: Array, other: Picks) -> None:
        """Replace some."""
        self.known[places], self.times[places], self.rows[places], self.values[places] = other.known, other.times, other.rows, other.values

    def spread(self, places: Array, count: int) -> Picks:
        """Among more windows, the others without a value."""
        out = Picks.nothing(self.kind, self.values.dtype == object, count)
        out.put(places, self)
        return out

    def merged(self, other: Picks) -> Picks:
        """Of both, window by window. Of equals the one that came first is `first`, the other `last`."""
        if self.kind == "first":
            better = (other.times < self.times) | ((other.times == self.times) & (other.rows < self.rows))
        elif self.kind == "last":
            better = (other.times > self.times) | ((other.times == self.times) & (other.rows >= self.rows))
        else:
            better = np.asarray(other.values < self.values if self.kind == "min" else other.values > self.values, np.bool_)
        theirs = other.known & (better | ~self.known)
        pairs = [(other.times, self.times), (other.rows, self.rows), (other.values, self.values)]
        return Picks(self.kind, self.known | other.known, *(np.where(theirs, new, old) for new, old in pairs))

    def result(self) -> pa.Array[Any]:
        """The values, NULL where there was none."""
        return pa.array(self.values, pa.string() if self.values.dtype == object else pa.float64(), mask=~self.known)

    def saved(self) -> list[pa.RecordBatch]:
        """For the state."""
        values = pa.array(self.values, pa.string() if self.values.dtype == object else pa.float64())
        return [
            pa.record_batch([pa.array(self.known), pa.array(self.times), pa.array(self.rows), values], ["known", "time", "row", "value"])
        ]

    @classmethod
    def restored(cls, kind: str, saved: pa.RecordBatch) -> Picks:
        """From the state."""
        known, times, rows, values = (column.to_numpy(zero_copy_only=False).copy() for column in saved.columns)
        return cls(kind, known, times, rows, values)


def _ranks(column: pa.Array[Any]) -> Array:
    """The place of each text among the others, in the order of code points."""
    encoded = column.dictionary_encode()
    ranks = np.unique(np.array(encoded.dictionary.to_pylist(), object), return_inverse=True)[1]
    return np.asarray(ranks[encoded.indices.to_numpy()])
