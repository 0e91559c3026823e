"""Aggregates fields over tumbling windows of event time, for each group key.

Windows are [start, end), aligned to 1970-01-01 UTC plus `offset`. Each row is judged alone: the watermark it meets is the newest time
before it, less `max_out_of_orderness`, and it is late when its window ended `allowed_lateness` before that. So the windows that come
out, each of them once, do not depend on how the rows were cut into batches. Late rows go whole to the port `late`; rows without a
usable time are rejected, and do not move the watermark.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field

from lakeward import END_OF_INPUT, OptionError, Refused, option
from lakeward.grouping import KEY_TYPES, NEVER, Array, Plausible, event_times, group_codes, plain_types, running_maximum
from lakeward.timestamps import to_utc
from lakeward_plugins.transforms.window_sums import PARTS, RESULTS, OpenWindows, sums_of

Function = Literal["mean", "avg", "min", "max", "count", "std", "sum"]
CENTURY = 36525 * 86400  # seconds; sums of longer ones would not fit into 64 bits of microseconds
TIME, US = pa.timestamp("us", "UTC"), timedelta(microseconds=1)


@define
class Window:
    """One row for each window and group key, once the window is over."""

    ports: ClassVar[tuple[str, ...]] = ("main", "late")
    row_wise: ClassVar[bool] = False

    aggregations: dict[str, list[Function] | Function] = option(help="For each field: mean (or avg), min, max, count, std, sum.")
    size: timedelta = option(timedelta(minutes=5), help="Length of a window.", maximum=CENTURY)
    offset: timedelta = option(timedelta(0), help="Shifts the start of all windows.")
    group_by: list[str] = option(factory=lambda: ["sensor_id"], help="Columns whose values together are the group key.")
    time_field: str = option("timestamp", help="Column with the time of the event.")
    naive_timezone: str = option("UTC", help="Timezone of times without one, or `reject`.")
    max_out_of_orderness: timedelta = option(
        timedelta(minutes=10), help="How much older than the newest row a row may be and still count.", maximum=CENTURY
    )
    allowed_lateness: timedelta = option(
        timedelta(0), help="How long a window stays open after the watermark passed its end.", maximum=CENTURY
    )
    watermark_scope: Literal["key", "global"] = option("key", help="Whether each group key has its own watermark.")
    min_time: str = option("2000-01-01", help="Rows before this time are rejected.")
    max_time: str = option("2100-01-01", help="Rows at or after this time are rejected.")
    max_open_windows: int = option(100_000, help="The run stops when more windows or keys are open.", minimum=1, maximum=500_000)

    _size: int = field(init=False)
    _span: Plausible = field(init=False)
    _zero: int = field(init=False)  # start of the first possible window
    _stride: int = field(init=False)  # number of possible windows; the slot of an open window is key * stride + window
    _key_schema: pa.Schema = field(init=False, factory=lambda: pa.schema([]))
    _keys: dict[tuple[Any, ...], int] = field(init=False, factory=dict)
    _watermarks: Array = field(init=False)
    _base: int = field(init=False, default=NEVER)  # the watermark of keys not seen yet
    _open: OpenWindows = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._size = self.size // US
        if self._size < 1000:  # so that slots fit into 63 bits
            raise OptionError("size", f"expected at least 1ms, got {self.size.total_seconds():g}s")
        for name in ("max_out_of_orderness", "allowed_lateness"):
            if getattr(self, name) < timedelta(0):
                raise OptionError(name, "expected 0s or longer")
        self._span = Plausible.between(self.min_time, self.max_time)
        to_utc(pa.array([], pa.string()), naive_timezone=self.naive_timezone)  # says so when there is no such zone
        shift = self.offset // US % self._size
        self._zero = (self._span.low - shift) // self._size * self._size + shift
        self._stride = (self._span.high - self._zero) // self._size + 1
        self._watermarks = np.full(1 if self.watermark_scope == "global" else 0, NEVER, np.int64)
        self._open = OpenWindows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((len(PARTS), len(self.aggregations), 0)))

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """The windows that these rows close, and the rows that came too late."""
        self._check(batch.schema)
        micros = event_times(batch, self.time_field, self.naive_timezone)
        usable, rejections = self._span.part(batch, micros, self.time_field)
        batch, micros = batch.filter(pa.array(usable)), micros[usable]
        keys, windows = self._codes(batch), (micros - self._zero) // self._size
        late = self._late(self._clocks(keys), micros, windows)
        self._open = self._open.plus(self._summed(batch, keys * self._stride + windows, ~late))
        np.maximum.at(self._watermarks, self._clocks(keys), micros - self.max_out_of_orderness // US)
        ports = {**rejections, "main": self._closed(), "late": batch.filter(pa.array(late))}
        if (held := max(len(self._open.slots), len(self._keys))) > self.max_open_windows:
            raise Refused(
                f"{held} windows or keys are open, max_open_windows allows {self.max_open_windows}; raise it, or group by fewer keys"
            )
        return ports

    def finish(self, watermark: datetime) -> Mapping[str, pa.RecordBatch]:
        """The windows that are over at `watermark`. At the end of input all are, and rows that come for them later are late."""
        if len(self._key_schema) < len(self.group_by):  # no batch yet, so no window
            return {}
        if watermark == END_OF_INPUT:
            keys, windows = np.divmod(self._open.slots, self._stride)
            np.maximum.at(self._watermarks, self._clocks(keys), self._ends(windows))
        else:
            self._base = max(self._base, pa.scalar(watermark, TIME).cast(pa.int64()).as_py())
            self._watermarks = np.maximum(self._watermarks, self._base)
        return {"main": self._closed()}

    def state(self) -> bytes:
        """Two Arrow streams: the keys, and the sums of the open windows."""
        note = {"options": self._fingerprint(), "base": self._base, "keys": len(self._keys), "watermarks": self._watermarks.tolist()}
        keys = self._key_rows(list(self._keys)).replace_schema_metadata({b"lakeward": json.dumps(note).encode()})
        columns = [self._open.slots, self._open.rows, *(values for part in self._open.sums for values in part)]
        windows = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=list(map(str, range(len(columns)))))
        out = pa.BufferOutputStream()
        for part in (keys, windows):
            with pa.ipc.new_stream(out, part.schema) as stream:
                stream.write_batch(part)
        return out.getvalue().to_pybytes()

    def restore(self, state: bytes) -> None:
        """Refuses sums whose meaning has changed with the options."""
        reader = pa.BufferReader(state)
        [keys], [windows] = (list(pa.ipc.open_stream(reader)) for _ in range(2))
        note = json.loads((keys.schema.metadata or {})[b"lakeward"])
        if changed := [name for name, value in self._fingerprint().items() if note["options"][name] != value]:
            raise Refused(f"the state holds windows made with another {', '.join(changed)}; put it back, or use a new state directory")
        self._key_schema = keys.schema.remove_metadata()
        known = zip(*(column.to_pylist() for column in keys.columns), strict=True) if self.group_by else [()] * note["keys"]
        self._keys = {key: code for code, key in enumerate(known)}
        self._base, self._watermarks = note["base"], np.array(note["watermarks"], np.int64)
        slots, rows, *sums = (column.to_numpy(zero_copy_only=False).copy() for column in windows.columns)
        self._open = OpenWindows(slots, rows, np.array(sums).reshape(len(PARTS), len(self.aggregations), len(slots)))

    def _check(self, schema: pa.Schema) -> None:
        kinds = plain_types(schema)
        key_paths = {f"group_by[{index}]": name for index, name in enumerate(self.group_by)}
        number_paths = {f"aggregations.{name}": name for name in self.aggregations}
        for path, name in ({"time_field": self.time_field} | key_paths | number_paths).items():
            if name not in schema.names:
                raise OptionError(path, f"no column {name!r}; columns are {', '.join(schema.names)}")
            if path in number_paths and not any(suits(kinds[name]) for suits in NUMBER_TYPES):
                raise OptionError(path, f"column {name!r} is {kinds[name]}; only numbers can be aggregated")
            if path in key_paths and not any(suits(kinds[name]) for suits in KEY_TYPES):
                raise OptionError(path, f"column {name!r} is {kinds[name]}; group by text, whole numbers or booleans")
        keys = pa.schema([(name, kinds[name]) for name in self.group_by])
        if len(self._key_schema) and self._key_schema != keys:
            raise Refused(f"the types of {', '.join(self.group_by)} have changed since the windows were opened; use a new state directory")
        self._key_schema = keys
        names = self._result(self._open.only(slice(0))).schema.names
        if twice := [name for name in self.group_by if names.count(name) > 1]:
            raise OptionError("group_by", f"the output would have two columns {twice[0]!r}; rename that of the input")

    def _codes(self, batch: pa.RecordBatch) -> Array:
        """A small number for the group key of each row, the same for ever; new keys get their watermark."""
        local, keys = group_codes(batch, self._key_schema)
        codes = np.array([self._keys.setdefault(key, len(self._keys)) for key in keys], np.int64)
        if self.watermark_scope == "key":
            fresh = np.full(len(self._keys) - len(self._watermarks), self._base)
            self._watermarks = np.concatenate([self._watermarks, fresh])
        return codes[local]

    def _clocks(self, keys: Array) -> Array:
        """Which watermark each key looks at."""
        return keys if self.watermark_scope == "key" else np.zeros_like(keys)

    def _late(self, clocks: Array, micros: Array, windows: Array) -> Array:
        """Which rows meet a watermark that has passed their window. A row cannot pass its own window, so it may count itself."""
        ends, wait = self._ends(windows), self.max_out_of_orderness // US
        # the newest time of all keys is no older than that of the row's key: who is not late by it is not late
        late = ends <= np.maximum(np.maximum.accumulate(micros) - wait, self._watermarks[clocks])
        rows = np.flatnonzero(np.isin(clocks, clocks[late]))
        rows = rows[np.argsort(clocks[rows], kind="stable")]
        newest = running_maximum(clocks[rows], micros[rows]) - wait
        late[rows] = ends[rows] <= np.maximum(newest, self._watermarks[clocks[rows]])
        return np.asarray(late)

    def _ends(self, windows: Array) -> Array:
        """The watermark at which each window is over."""
        return np.asarray(windows * self._size + (self._zero + self._size + self.allowed_lateness // US))

    def _summed(self, batch: pa.RecordBatch, slots: Array, taken: Array) -> OpenWindows:
        distinct, groups = np.unique(slots[taken], return_inverse=True)
        count = len(distinct)
        columns = [batch.column(name).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) for name in self.aggregations]
        sums = np.array([sums_of(column[taken], groups, count) for column in columns]).reshape(len(columns), len(PARTS), count)
        return OpenWindows(distinct, np.bincount(groups, minlength=count), sums.swapaxes(0, 1))

    def _closed(self) -> pa.RecordBatch:
        """The windows that the watermark has passed, which are open no more."""
        keys, windows = np.divmod(self._open.slots, self._stride)
        over = self._ends(windows) <= self._watermarks[self._clocks(keys)]
        closed, self._open = self._open.only(over), self._open.only(~over)
        return self._result(closed)

    def _result(self, windows: OpenWindows) -> pa.RecordBatch:
        codes, numbers = np.divmod(windows.slots, self._stride)
        known, starts = list(self._keys), self._zero + numbers * self._size
        keys = [known[code] for code in codes.tolist()]
        columns: list[tuple[str, pa.Array[Any]]] = list(zip(self.group_by, self._key_rows(keys).columns, strict=True))
        columns += [("window_start", pa.array(starts).cast(TIME)), ("window_end", pa.array(starts + self._size).cast(TIME))]
        for (name, functions), sums in zip(self.aggregations.items(), windows.sums.swapaxes(0, 1), strict=True):
            listed = [functions] if isinstance(functions, str) else functions
            prefixes = dict.fromkeys("avg" if function == "mean" else function for function in listed)
            columns += [(f"{prefix}_{name}", RESULTS[prefix](sums)) for prefix in prefixes]
        identities = [self._identity(key, start) for key, start in zip(keys, starts.tolist(), strict=True)]
        columns += [("record_count", pa.array(windows.rows)), ("window_id", pa.array(identities, pa.int64()))]
        columns += [("revision", pa.repeat(pa.scalar(0, pa.int32()), len(keys))), ("is_final", pa.repeat(True, len(keys)))]
        result = pa.RecordBatch.from_arrays([column for _, column in columns], names=[name for name, _ in columns])
        order: Any = [(name, "ascending") for name in ("window_start", *self.group_by)]
        return result.take(pc.sort_indices(result, sort_keys=order)) if keys else result

    def _identity(self, key: tuple[Any, ...], start: int) -> int:
        """The same window has the same number in every run, so that a sink can replace what it has."""
        digest = hashlib.sha256(json.dumps([self._size, key, start]).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def _key_rows(self, keys: list[tuple[Any, ...]]) -> pa.RecordBatch:
        columns = [pa.array([key[index] for key in keys], kind.type) for index, kind in enumerate(self._key_schema)]
        return pa.RecordBatch.from_arrays(columns, schema=self._key_schema)

    def _fingerprint(self) -> dict[str, Any]:
        """The options without which the numbers in the state mean nothing."""
        fields = {"aggregations": list(self.aggregations), "group_by": self.group_by, "watermark_scope": self.watermark_scope}
        return fields | {"size": self._size, "offset": self.offset // US, "min_time": self.min_time, "max_time": self.max_time}


NUMBER_TYPES = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
