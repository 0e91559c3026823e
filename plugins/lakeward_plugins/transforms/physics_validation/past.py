"""What rules over time remember from batch to batch: the keys they have met, readings of each rule, and the rows that wait."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from attrs import define, field

from lakeward import Refused
from lakeward.grouping import NEVER, Array, Key, group_codes, plain_types
from lakeward.packing import pack, unpack
from lakeward_plugins.transforms.physics_validation.sample import Memory, Series

log = logging.getLogger("lakeward.physics_validation")


@define(eq=False)
class Past:
    """All of it is bounded: a record for each key, and the readings that flatline and attenuated may still need."""

    key: Sequence[str]
    max_keys: int
    max_remembered: int
    held: pa.RecordBatch | None = None
    """The newest row of each key when it waits for the one after it; as it came in."""
    memory: dict[str, Memory] = field(factory=dict)
    """By rule."""
    _schema: pa.Schema | None = None
    _keys: dict[Key, int] = field(factory=dict)
    _newest: Array = field(factory=lambda: np.zeros(0, np.int64))

    def before(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch behind the rows that wait, in its schema."""
        if self.held is None:
            return batch
        if gone := [name for name in self.held.schema.names if name not in batch.schema.names]:
            raise Refused(
                f"{self.held.num_rows} rows wait in the state with a column {gone[0]!r} that is gone; bring it back until they have left"
            )
        known, count = self.held.schema.names, self.held.num_rows
        columns = [self.held.column(one.name).cast(one.type) if one.name in known else pa.nulls(count, one.type) for one in batch.schema]
        held = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
        return pa.concat_batches([held, batch])  # type: ignore[attr-defined,no-any-return]  # missing in the stubs

    def series(self, rows: pa.RecordBatch, times: Array, wait: bool) -> Series:
        """The rows key by key."""
        kinds = plain_types(rows.schema)
        schema = pa.schema([(name, kinds[name]) for name in self.key])
        if self._schema is not None and self._schema != schema:
            raise Refused(f"the types of {', '.join(self.key)} have changed since the state was made; use a new state directory")
        self._schema = schema
        local, keys = group_codes(rows, schema)
        numbers = np.array([self._keys.setdefault(key, len(self._keys)) for key in keys], np.int64)
        if len(self._keys) > self.max_keys:
            raise Refused(f"there are {len(self._keys)} keys, max_keys allows {self.max_keys}; raise it, or choose another key")
        self._newest = np.concatenate([self._newest, np.full(len(self._keys) - len(self._newest), NEVER)])
        return Series.of(numbers[local], times, times != NEVER, self._newest, wait)

    def advance(self, series: Series) -> None:
        """To the end of the rows that leave."""
        ends = series.ends
        self._newest[series.keys[ends]] = series.times[ends]
        held = sum(len(memory["key"]) for memory in self.memory.values() if "key" in memory)
        if held > self.max_remembered:
            raise Refused(f"{held} readings are remembered, max_remembered allows {self.max_remembered}; raise it, or shorten a period")

    def to_bytes(self, signatures: Mapping[str, str]) -> bytes:
        """With a word for each rule that tells what its readings mean."""
        if self._schema is None and self.held is None:
            return b""
        note = {"key": list(self.key), "rules": {rule: signatures[rule] for rule in self.memory}, "met": self._schema is not None}
        arrays = {"newest": self._newest}
        for rule, memory in self.memory.items():
            arrays |= {f"{rule}\n{name}": array for name, array in memory.items()}
        batches = {} if self.held is None else {"held": self.held}
        if self._schema is not None and self.key:
            columns = [pa.array([key[place] for key in self._keys], one.type) for place, one in enumerate(self._schema)]
            batches["keys"] = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        return pack(note, arrays, batches)

    def from_bytes(self, state: bytes, signatures: Mapping[str, str]) -> None:
        """A rule that has changed, and all of them when the key has, start anew, with a word in the log."""
        if not state:
            return
        note, arrays, batches = unpack(state)
        self.held = batches.get("held")
        if note["key"] != list(self.key):
            log.warning("the key was %s: all rules over time start anew", ", ".join(note["key"]) or "none")
            return
        if note["met"]:
            self._schema = batches["keys"].schema if self.key else pa.schema([])
            self._keys = _numbered(batches.get("keys"), len(arrays["newest"]))
            self._newest = arrays["newest"]
        for rule, signature in note["rules"].items():
            if signatures.get(rule) == signature:
                own = {name: array for name, array in arrays.items() if name.startswith(f"{rule}\n")}
                self.memory[rule] = {name.removeprefix(f"{rule}\n"): array for name, array in own.items()}
            else:
                log.warning("rule %s is gone or has changed: what it remembered is forgotten", rule)


def _numbered(keys: pa.RecordBatch | None, count: int) -> dict[Key, int]:
    known: Any = [()] * count if keys is None else zip(*(column.to_pylist() for column in keys.columns), strict=True)
    return {key: number for number, key in enumerate(known)}
