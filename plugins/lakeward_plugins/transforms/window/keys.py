"""Group keys: a small number for each, the same for ever, and the numbers of windows.

The identity of a window is a number of 63 bits that is the same in every run: SHA-256 of pipeline, shape and group key, mixed with the
start (splitmix64, Steele, Lea and Flood 2014), so no two windows of one key share it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from attrs import define, field

from lakeward.grouping import Array, Key, group_codes

EMPTY = pa.schema([])


@define(eq=False)
class Keys:
    """The group keys that have been seen, without those that come from the time of a row."""

    salt: str
    """The name of the pipeline and the shape of the windows."""
    schema: pa.Schema = EMPTY
    _codes: dict[Key, int] = field(init=False, factory=dict)
    _rows: pa.RecordBatch = field(init=False)
    _hashes: Array = field(init=False, factory=lambda: np.zeros(0, np.uint64))

    def __attrs_post_init__(self) -> None:
        self._rows = pa.RecordBatch.from_pylist([], self.schema)

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, batch: pa.RecordBatch) -> Array:
        """The number of the group key of each row; new keys get one."""
        local, keys = group_codes(batch, self.schema)
        self.add([key for key in keys if key not in self._codes])
        return np.array([self._codes[key] for key in keys], np.int64)[local]

    def add(self, keys: list[Key]) -> None:
        """Keys that were not known."""
        if not keys:
            return
        for key in keys:
            self._codes[key] = len(self._codes)
        if self.schema:
            columns = [pa.array([key[place] for key in keys], one.type) for place, one in enumerate(self.schema)]
            fresh = pa.RecordBatch.from_arrays(columns, schema=self.schema)
            self._rows = pa.concat_batches([self._rows, fresh])  # type: ignore[attr-defined]  # missing in the stubs
        self._hashes = np.concatenate([self._hashes, np.array([self._hash(key) for key in keys], np.uint64)])

    def keep(self, codes: Array) -> None:
        """Only these, which ascend; they get the numbers from 0 on."""
        known = list(self._codes)
        self._codes = {known[code]: place for place, code in enumerate(codes.tolist())}
        self._rows, self._hashes = self._rows.take(codes), self._hashes[codes]

    def columns(self, codes: Array) -> list[pa.Array[Any]]:
        """The values of these keys."""
        return [column.take(codes) for column in self._rows.columns]

    def all(self) -> pa.RecordBatch:
        """All of them, in the order of their numbers."""
        return self._rows

    def identities(self, codes: Array, *moments: Array) -> pa.Array[Any]:
        """The numbers of windows of these keys that begin then."""
        mixed = self._hashes[codes]
        for moment in moments:
            mixed = _mixed(mixed + _mixed(moment.astype(np.uint64)))
        return pa.array((mixed >> np.uint64(1)).astype(np.int64))

    def _hash(self, key: Key) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.salt}\0{key!r}".encode()).digest()[:8], "big")


def _mixed(numbers: Array) -> Array:
    """The mixing step of splitmix64: each bit of the result depends on all bits, and no two numbers give the same."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))
