"""The sessions of all keys that can still change, as columns, and how rows cut by pauses become sessions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from attrs import astuple, fields, frozen

from lakeward.grouping import Array, running_maximum, starts


@frozen(eq=False)
class Book:
    """Ascending by slot, as their table."""

    slots: Array
    keys: Array
    """Key and, where it is a part of the group key, the hour or day in one number."""
    first: Array
    last: Array
    out: Array
    """Whether they came out, or would have, had the batch ended then."""
    closed: Array
    revision: Array
    told: Array
    """The last revision that really came out, -1 if none did."""

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, int, bool, bool, int, int]] = ()) -> Book:
        """From the values of each session."""
        columns = zip(*rows, strict=True) if rows else [()] * 8
        kinds = [np.bool_ if place in (4, 5) else np.int64 for place in range(8)]
        return cls(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))

    @classmethod
    def fresh(cls, slots: Array, keys: Array, first: Array, last: Array) -> Book:
        """Sessions of which nothing came out."""
        no, zero = np.zeros(len(slots), np.bool_), np.zeros(len(slots), np.int64)
        return cls(slots, keys, first, last, no, no, zero, zero - 1)

    def columns(self) -> tuple[Array, ...]:
        """All of them."""
        return astuple(self, recurse=False)

    def only(self, which: Array) -> Book:
        """Some sessions."""
        return Book(*(column[which] for column in self.columns()))

    def plus(self, *others: Book) -> Book:
        """All of them, by slot."""
        columns = [np.concatenate(parts) for parts in zip(self.columns(), *(other.columns() for other in others), strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return Book(*(column[order] for column in columns))

    def saved(self) -> pa.RecordBatch:
        """For the state."""
        return pa.record_batch([pa.array(column) for column in self.columns()], [one.name for one in fields(Book)])

    @classmethod
    def restored(cls, saved: pa.RecordBatch) -> Book:
        """From the state."""
        return cls(*(column.to_numpy(zero_copy_only=False).copy() for column in saved.columns))


@frozen(eq=False)
class Cut:
    """Spans of time, cut into sessions where there is a pause."""

    of: Array
    """The session of each span, in the order in which the spans were given."""
    keys: Array
    first: Array
    last: Array

    @classmethod
    def at(cls, gap: int, keys: Array, first: Array, last: Array) -> Cut:
        """Spans of one key are of one session while the next begins less than `gap` after the end of those before."""
        order = np.lexsort((first, keys))
        sorted_keys, begin = keys[order], first[order]
        until = running_maximum(sorted_keys, last[order])
        edges = starts(sorted_keys)
        edges[1:] |= begin[1:] >= until[:-1] + gap
        where = np.flatnonzero(edges)
        of = np.empty(len(order), np.int64)
        of[order] = np.cumsum(edges) - 1
        ends = np.append(where[1:], len(order)) - 1 if len(where) else where
        return cls(of, sorted_keys[where], begin[where], until[ends])
