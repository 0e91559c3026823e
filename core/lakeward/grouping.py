"""Keys and event times of rows, as numpy arrays, for transforms that work group by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from attrs import evolve, frozen

from lakeward.components import rejected
from lakeward.errors import OptionError
from lakeward.timestamps import Fold, Unit, to_utc

Array = npt.NDArray[Any]
Key = tuple[Any, ...]
LETTERS = (pa.types.is_string, pa.types.is_large_string)
KEY_TYPES = (*LETTERS, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
"""Tests of the types that can be a part of a key."""
NEVER = -(2**62)
"""Microseconds of a row without a time; sums with durations stay within int64."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY, LAST_DAY = ((day - date(1970, 1, 1)).days for day in (date.min, date.max))
MICROSECOND, DAY = timedelta(microseconds=1), timedelta(days=1)


def plain(column: Any) -> Any:
    """The column without its dictionary."""
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def plain_types(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The type of each column, without its dictionary."""
    return {one.name: one.type.value_type if isinstance(one.type, pa.DictionaryType) else one.type for one in schema}


def group_codes(batch: pa.RecordBatch, key_schema: pa.Schema) -> tuple[Array, list[Key]]:
    """For each row the number of its key, and the distinct keys in that order. Without key columns there is one key, `()`."""
    codes, keys = np.zeros(batch.num_rows, np.int64), [()] if batch.num_rows else []
    for one in key_schema:
        encoded = batch.column(one.name).cast(one.type).dictionary_encode(null_encoding="encode")
        width, values = len(encoded.dictionary), encoded.dictionary.to_pylist()
        pairs, codes = np.unique(codes * width + encoded.indices.to_numpy(zero_copy_only=False), return_inverse=True)
        keys = [(*keys[pair // width], values[pair % width]) for pair in pairs.tolist()]
    return codes, keys


def undecodable(batch: pa.RecordBatch, columns: Sequence[str]) -> Array:
    """Places of rows with text that is not UTF-8 in one of the columns: Arrow does not look, `group_codes` raises UnicodeDecodeError."""
    bad = np.zeros(batch.num_rows, np.bool_)
    for column in (plain(batch.column(name)) for name in columns):
        if any(fits(column.type) for fits in LETTERS):
            encoded = column.cast(pa.large_binary()).dictionary_encode(null_encoding="encode")
            wrong = [place for place, value in enumerate(encoded.dictionary.to_pylist()) if value is not None and not _is_text(value)]
            bad |= np.isin(encoded.indices.to_numpy(zero_copy_only=False), wrong)
    return np.flatnonzero(bad)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def strange_dates(column: Any) -> Array:
    """Places of dates before the year 1 or after 9999: Python has none, nor have readers of Delta tables."""
    days = np.asarray(plain(column).cast(pa.int32()).fill_null(0))
    return np.flatnonzero((days < FIRST_DAY) | (days > LAST_DAY))


def starts(values: Array) -> Array:
    """Where a value differs from the one before it; the first one does."""
    return np.append(np.ones(min(1, len(values)), np.bool_), values[1:] != values[:-1])


def running_maximum(groups: Array, values: Array) -> Array:
    """For each row the greatest value so far in its group; groups must be sorted."""
    distinct, ranks = np.unique(values, return_inverse=True)
    lift = (np.cumsum(starts(groups)) - 1) * len(distinct)  # each group starts above all of the group before it
    return np.asarray(distinct[np.maximum.accumulate(lift + ranks) - lift])


def event_times(batch: pa.RecordBatch, time_field: str, naive_timezone: str, time_unit: Unit = "auto", fold: Fold = "reject") -> Array:
    """Microseconds since 1970 of each row, NEVER where there is no time."""
    try:
        times, _ = to_utc(batch.column(time_field), naive_timezone=naive_timezone, fold=fold, unit=time_unit)
    except TypeError as error:
        raise OptionError("time_field", f"column {time_field!r}: {error}") from error
    return np.asarray(times.cast(pa.int64()).fill_null(NEVER).to_numpy(zero_copy_only=False))


@frozen
class Plausible:
    """From when to when a time can be meant: a clock gone wrong must not make all later rows late."""

    low: int
    high: int
    """Without a clock; the end is excluded."""
    future: int
    """How far after the clock a time may lie, in microseconds."""
    words: str
    now: int | None = None
    """What the clock shows, when there is one."""

    @classmethod
    def between(cls, min_time: str, max_time: str, max_future_s: timedelta = DAY) -> Plausible:
        """From the options of these names; rows at `max_time` are out."""
        low, high = moment("min_time", min_time), moment("max_time", max_time)
        if low >= high:
            raise OptionError("min_time", f"expected a time before max_time, {max_time}")
        return cls(low, high, max_future_s // MICROSECOND, f"{min_time} to {max_time}")

    def at(self, now: datetime) -> Plausible:
        """The same by the clock: what lies more than `max_future_s` after `now` is out too. For the method `clock` of a transform.

        A clock before `min_time` is wrong itself, as on a board without a battery; it is not believed.
        """
        micros = (now - EPOCH) // MICROSECOND
        return evolve(self, now=micros if micros >= self.low else None)

    def usable(self, micros: Array) -> Array:
        """Which times can be meant; NEVER cannot."""
        usable = (micros >= self.low) & (micros < self.high)
        if self.now is not None and self.now + self.future < self.high:
            usable &= micros <= self.now + self.future
        return np.asarray(usable)

    def faults(self, micros: Array) -> Array:
        """What is wrong with times that are not usable: places in `fault_words`."""
        return np.select([micros == NEVER, (micros < self.low) | (micros >= self.high)], [0, 1], 2)

    @property
    def fault_words(self) -> tuple[str, str, str]:
        """How sentences about a time end."""
        future = f"is more than {self.future / 1e6:,.15g} s after the time at which the row was read"
        return "is missing, or no time", f"is not in {self.words}", future

    def part(self, batch: pa.RecordBatch, micros: Array, time_field: str) -> tuple[Array, Mapping[str, pa.RecordBatch]]:
        """Which rows have a usable time, and the others for the port `rejected`: `time_parse`, or `time_range`."""
        usable = self.usable(micros)
        if usable.all():
            return usable, {}
        why: Any = pa.array(self.faults(micros[~usable]))
        details = pa.array([f"{time_field} {words}" for words in self.fault_words]).take(why)
        reasons = pa.array(["time_parse", "time_range", "time_range"]).take(why)
        return usable, {"rejected": rejected(batch.filter(pa.array(~usable)), reasons, details)}


def moment(option: str, text: str) -> int:
    """The microseconds since 1970 of a time that an option says. Raises `OptionError` for text that is none."""
    found = to_utc(pa.array([text]))[0].cast(pa.int64())[0].as_py()
    if found is None:
        raise OptionError(option, f"expected a time such as 2000-01-01 or 2026-01-31T08:00Z, got {text!r}")
    return int(found)
