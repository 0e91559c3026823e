"""Aggregates fields over tumbling windows of event time, for each group key.

Windows are [start, end), aligned to 1970-01-01 UTC plus `offset`. Each row is judged alone: the watermark it meets is the newest time
before it, less `max_out_of_orderness`, and it is late when its window ended `allowed_lateness` before that. So the windows that come
out, each of them once, do not depend on how the rows were cut into batches. Late rows go whole to the port `late`; rows without a
usable time are rejected, and do not move the watermark. Means and deviations are merged as in Chan, Golub and LeVeque, "Algorithms
for computing the sample variance" (1983): sums of squares lose all digits when values are large and their spread is small.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field, frozen

from lakeward import END_OF_INPUT, OptionError, Refused, option, rejected
from lakeward.timestamps import to_utc

Array = npt.NDArray[Any]
Function = Literal["mean", "avg", "min", "max", "count", "std", "sum"]
TIME, US = pa.timestamp("us", "UTC"), timedelta(microseconds=1)
NEVER = -(2**62)  # a watermark that nothing has moved yet; sums with durations stay within int64


@define
class Window:
    """One row for each window and group key, once the window is over."""

    ports: ClassVar[tuple[str, ...]] = ("main", "late")
    row_wise: ClassVar[bool] = False

    aggregations: dict[str, list[Function] | Function] = option(help="For each field: mean (or avg), min, max, count, std, sum.")
    size: timedelta = option(timedelta(minutes=5), help="Length of a window.")
    offset: timedelta = option(timedelta(0), help="Shifts the start of all windows.")
    group_by: list[str] = option(factory=lambda: ["sensor_id"], help="Columns whose values together are the group key.")
    time_field: str = option("timestamp", help="Column with the time of the event.")
    naive_timezone: str = option("UTC", help="Timezone of times without one, or `reject`.")
    max_out_of_orderness: timedelta = option(timedelta(minutes=10), help="How much older than the newest row a row may be and still count.")
    allowed_lateness: timedelta = option(timedelta(0), help="How long a window stays open after the watermark passed its end.")
    watermark_scope: Literal["key", "global"] = option("key", help="Whether each group key has its own watermark.")
    min_time: str = option("2000-01-01", help="Rows before this time are rejected.")
    max_time: str = option("2100-01-01", help="Rows at or after this time are rejected.")
    max_open_windows: int = option(100_000, help="The run stops when more windows or keys are open.", minimum=1, maximum=500_000)

    _size: int = field(init=False)
    _span: tuple[int, int] = field(init=False)
    _zero: int = field(init=False)  # start of the first possible window
    _stride: int = field(init=False)  # number of possible windows; the slot of an open window is key * stride + window
    _key_schema: pa.Schema = field(init=False, factory=lambda: pa.schema([]))
    _keys: dict[tuple[Any, ...], int] = field(init=False, factory=dict)
    _watermarks: Array = field(init=False)
    _base: int = field(init=False, default=NEVER)  # the watermark of keys not seen yet
    _open: _OpenWindows = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._size = self.size // US
        if self._size < 1000:  # so that slots fit into 63 bits
            raise OptionError("size", f"expected at least 1ms, got {self.size.total_seconds():g}s")
        for name in ("max_out_of_orderness", "allowed_lateness"):
            if getattr(self, name) < timedelta(0):
                raise OptionError(name, "expected 0s or longer")
        self._span = _moment("min_time", self.min_time), _moment("max_time", self.max_time)
        if self._span[0] >= self._span[1]:
            raise OptionError("min_time", f"expected a time before max_time, {self.max_time}")
        to_utc(pa.array([], pa.string()), naive_timezone=self.naive_timezone)  # says so when there is no such zone
        shift = self.offset // US % self._size
        self._zero = (self._span[0] - shift) // self._size * self._size + shift
        self._stride = (self._span[1] - self._zero) // self._size + 1
        self._watermarks = np.full(1 if self.watermark_scope == "global" else 0, NEVER, np.int64)
        self._open = _OpenWindows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((len(PARTS), len(self.aggregations), 0)))

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """The windows that these rows close, and the rows that came too late."""
        self._check(batch.schema)
        micros, ports = self._times(batch)
        usable = micros != NEVER
        batch, micros = batch.filter(pa.array(usable)), micros[usable]
        keys, windows = self._codes(batch), (micros - self._zero) // self._size
        late = self._late(self._clocks(keys), micros, windows)
        self._open = self._open.plus(self._summed(batch, keys * self._stride + windows, ~late))
        np.maximum.at(self._watermarks, self._clocks(keys), micros - self.max_out_of_orderness // US)
        ports |= {"main": self._closed(), "late": batch.filter(pa.array(late))}
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
        self._open = _OpenWindows(slots, rows, np.array(sums).reshape(len(PARTS), len(self.aggregations), len(slots)))

    def _check(self, schema: pa.Schema) -> None:
        kinds = {one.name: one.type.value_type if isinstance(one.type, pa.DictionaryType) else one.type for one in schema}
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

    def _times(self, batch: pa.RecordBatch) -> tuple[Array, dict[str, pa.RecordBatch]]:
        """Microseconds of each row, NEVER for a row that is on the port `rejected`."""
        try:
            times, _ = to_utc(batch.column(self.time_field), naive_timezone=self.naive_timezone)
        except TypeError as error:
            raise OptionError("time_field", f"column {self.time_field!r}: {error}") from error
        micros = times.cast(pa.int64()).fill_null(NEVER).to_numpy(zero_copy_only=False)
        unread = micros == NEVER
        beyond = ~unread & ((micros < self._span[0]) | (micros >= self._span[1]))
        bad = [rejected(batch.filter(pa.array(unread)), "time_parse", f"{self.time_field} is missing, or no time")] if unread.any() else []
        if beyond.any():
            bad += [
                rejected(batch.filter(pa.array(beyond)), "time_range", f"{self.time_field} is not in {self.min_time} to {self.max_time}")
            ]
        ports = {"rejected": pa.Table.from_batches(bad).combine_chunks().to_batches()[0]} if bad else {}
        return np.where(beyond, NEVER, micros), ports

    def _codes(self, batch: pa.RecordBatch) -> Array:
        """A small number for the group key of each row, the same for ever; new keys get their watermark."""
        local, keys = np.zeros(batch.num_rows, np.int64), [()] if batch.num_rows else []
        for key in self._key_schema:
            encoded = batch.column(key.name).cast(key.type).dictionary_encode(null_encoding="encode")
            width, values = len(encoded.dictionary), encoded.dictionary.to_pylist()
            pairs, local = np.unique(local * width + encoded.indices.to_numpy(zero_copy_only=False), return_inverse=True)
            keys = [(*keys[pair // width], values[pair % width]) for pair in pairs.tolist()]
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
        newest = _running_maximum(clocks[rows], micros[rows]) - wait
        late[rows] = ends[rows] <= np.maximum(newest, self._watermarks[clocks[rows]])
        return np.asarray(late)

    def _ends(self, windows: Array) -> Array:
        """The watermark at which each window is over."""
        return np.asarray(windows * self._size + (self._zero + self._size + self.allowed_lateness // US))

    def _summed(self, batch: pa.RecordBatch, slots: Array, taken: Array) -> _OpenWindows:
        distinct, groups = np.unique(slots[taken], return_inverse=True)
        count = len(distinct)
        columns = [batch.column(name).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) for name in self.aggregations]
        sums = np.array([_sums(column[taken], groups, count) for column in columns]).reshape(len(columns), len(PARTS), count)
        return _OpenWindows(distinct, np.bincount(groups, minlength=count), sums.swapaxes(0, 1))

    def _closed(self) -> pa.RecordBatch:
        """The windows that the watermark has passed, which are open no more."""
        keys, windows = np.divmod(self._open.slots, self._stride)
        over = self._ends(windows) <= self._watermarks[self._clocks(keys)]
        closed, self._open = self._open.only(over), self._open.only(~over)
        return self._result(closed)

    def _result(self, windows: _OpenWindows) -> pa.RecordBatch:
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


# -- sums --------------------------------------------------------------------------------------------------------------

# What is known of a field in a window. REST is what rounding cut off from TOTAL, SQUARES the squared deviations from the mean.
PARTS = N, TOTAL, REST, SQUARES, LOW, HIGH = range(6)
NOTHING = np.array([0, 0, 0, 0, np.inf, -np.inf])[:, None]


@frozen(eq=False)
class _OpenWindows:
    """Sums of windows that are not over, ascending by slot."""

    slots: Array
    rows: Array
    sums: Array  # part x field x window

    def plus(self, other: _OpenWindows) -> _OpenWindows:
        slots = np.union1d(self.slots, other.slots)
        mine, theirs = self.over(slots), other.over(slots)
        return _OpenWindows(slots, mine.rows + theirs.rows, _merged(mine.sums, theirs.sums))

    def only(self, which: Array | slice) -> _OpenWindows:
        return _OpenWindows(self.slots[which], self.rows[which], self.sums[..., which])

    def over(self, slots: Array) -> _OpenWindows:
        """Spread over more slots, with nothing in the new ones."""
        rows, sums = np.zeros(len(slots), np.int64), np.tile(NOTHING[:, None], (self.sums.shape[1], len(slots)))
        places = np.searchsorted(slots, self.slots)
        rows[places], sums[..., places] = self.rows, self.sums
        return _OpenWindows(slots, rows, sums)


@np.errstate(over="ignore", invalid="ignore")  # sums of absurd values may be infinite
def _sums(values: Array, groups: Array, count: int) -> Array:
    """Part x group of values in these groups. NULL, NaN and infinity are no readings."""
    finite = np.isfinite(values)
    if not finite.all():
        values, groups = values[finite], groups[finite]
    sums = np.tile(NOTHING, count)
    sums[N] = np.bincount(groups, minlength=count)
    divisor = np.maximum(sums[N], 1)
    center = np.bincount(groups, values, count) / divisor
    center = (center.view(np.int64) & -(2**27)).view(np.float64)  # near the mean, with so few digits that N * center is exact
    deviations = values - center[groups]
    shift = np.bincount(groups, deviations, count)
    sums[SQUARES] = np.maximum(np.bincount(groups, deviations * deviations, count) - shift * shift / divisor, 0)
    sums[TOTAL], sums[REST] = _exact_sum(sums[N] * center, shift)
    np.minimum.at(sums[LOW], groups, values)
    np.maximum.at(sums[HIGH], groups, values)
    return sums


@np.errstate(over="ignore", invalid="ignore")
def _merged(one: Array, other: Array) -> Array:
    gap = _mean(other) - _mean(one)
    squares = one[SQUARES] + other[SQUARES] + gap * gap * one[N] * other[N] / np.maximum(one[N] + other[N], 1)
    total, rest = _exact_sum(one[TOTAL], other[TOTAL])
    low, high = np.minimum(one[LOW], other[LOW]), np.maximum(one[HIGH], other[HIGH])
    return np.array([one[N] + other[N], total, rest + one[REST] + other[REST], squares, low, high])


def _exact_sum(one: Array, other: Array) -> tuple[Array, Array]:
    """The sum and its rounding error (Knuth's TwoSum), so that the order of additions does not show."""
    total = one + other
    back = total - one
    return total, (one - (total - back)) + (other - back)


def _mean(sums: Array) -> Array:
    mean = (sums[TOTAL] + sums[REST]) / np.maximum(sums[N], 1)
    return np.where(sums[N] > 0, np.clip(mean, sums[LOW], sums[HIGH]), 0.0)


RESULTS: Mapping[str, Callable[[Array], pa.Array[Any]]] = {
    "count": lambda sums: pa.array(sums[N].astype(np.int64)),
    "avg": lambda sums: pa.array(_mean(sums), mask=sums[N] < 1),
    "sum": lambda sums: pa.array(sums[TOTAL] + sums[REST], mask=sums[N] < 1),
    "min": lambda sums: pa.array(sums[LOW], mask=sums[N] < 1),
    "max": lambda sums: pa.array(sums[HIGH], mask=sums[N] < 1),
    # rounding must not make a constant vary
    "std": lambda sums: pa.array(np.sqrt(sums[SQUARES] * (sums[LOW] < sums[HIGH]) / np.maximum(sums[N] - 1, 1)), mask=sums[N] < 2),
}


def _running_maximum(groups: Array, values: Array) -> Array:
    """For each row the greatest value so far in its group."""
    order = np.argsort(groups, kind="stable")
    distinct, ranks = np.unique(values[order], return_inverse=True)
    lift = groups[order] * len(distinct)  # each group starts above all of the group before it
    result = np.empty_like(values)
    result[order] = distinct[np.maximum.accumulate(lift + ranks) - lift]
    return result


NUMBER_TYPES = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
KEY_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)


def _moment(name: str, text: str) -> int:
    moment = to_utc(pa.array([text]))[0].cast(pa.int64())[0].as_py()
    if moment is None:
        raise OptionError(name, f"expected a time such as 2000-01-01, got {text!r}")
    return int(moment)
