"""From what sensors write as a time to one form: microseconds in UTC.

Text is ISO 8601: `T` or a space, seconds and their fraction may be missing (a date alone is its midnight), `Z`, `+hh`, `+hhmm`
or `+hh:mm`, and without any of these the naive timezone. Digits after the microseconds are cut off. Text that is a number, and
numbers, count from 1970, or are Julian days as SQLite's `julianday()` gives them: days since noon of 24 November 4714 BC. Not read,
because there is no one right answer: leap seconds (`:60`), `24:00`, basic forms without hyphens, and, unless `fold` gives one, local
times that happened twice or never. A row's answer never depends on the rows around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward.errors import OptionError

Unit = Literal["auto", "s", "ms", "us", "ns", "julian"]
"""What a number counts; `auto` tells it by its size."""
Fold = Literal["reject", "before", "after"]
"""Whose offset a local time gets that a change of the clocks makes happen twice or never: none, or that before or after the change."""
UTC = pa.timestamp("us", "UTC")
NAIVE = pa.timestamp("us")
SPAN = -9_223_372_036_854_775, 9_223_372_036_854_775
"""Microseconds that also fit into nanoseconds, as many readers keep them: 1677-09-21 to 2262-04-11."""
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
DAY_OF_MICROS = 86_400_000_000
PLAUSIBLE = 946_684_800_000_000, 4_102_444_800_000_000
"""Microseconds of the years 2000 to 2100: within them no number can be read in two units, nor as Julian days, 2451544.5 to 2488069.5."""
JULIAN_1970 = 2_440_587.5
"""The Julian day of 1970-01-01T00:00Z."""


def to_utc(
    column: pa.Array[Any], *, naive_timezone: str = "UTC", fold: Fold = "reject", unit: Unit = "auto"
) -> tuple[Any, pa.BooleanArray]:
    """The times of a column, and which rows are good.

    NULL is good and stays NULL; what cannot be read is NULL and not good. `naive_timezone` is an IANA name, or `reject` to
    read no time without a zone; `fold` is for local times that the clocks showed twice or never. `unit` is that of numbers;
    `auto` tells it by the size of each, for the years 2000 to 2100.
    Raises `TypeError` when the type of the column holds no times, and `OptionError` when there is no such timezone.
    """
    check_timezone(naive_timezone)
    if isinstance(column, pa.DictionaryArray):
        times = to_utc(column.dictionary, naive_timezone=naive_timezone, fold=fold, unit=unit)[0].take(column.indices)
        missing = pc.is_null(column.cast(column.type.value_type))
    else:
        times, missing = _within_span(_reader(column.type, LocalTime(naive_timezone, fold), unit)(column)), pc.is_null(column)
    return times, pc.or_(missing, pc.is_valid(times))


def check_timezone(zone: str) -> None:
    """Raises `OptionError` for the option `naive_timezone` when there is no such timezone."""
    try:
        if zone != "reject":
            pc.assume_timezone(pa.array([0], NAIVE), zone)
    except pa.ArrowInvalid as error:
        raise OptionError("naive_timezone", f"no timezone {zone!r}; expected UTC, reject, or a name such as Europe/Berlin") from error


def _reader(kind: pa.DataType, local: LocalTime, unit: Unit) -> Callable[[Any], Any]:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return partial(_from_text, local=local, unit=unit)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return partial(_from_numbers, unit=unit)
    if pa.types.is_timestamp(kind):
        return partial(_from_timestamps, local=local)
    if pa.types.is_date(kind):
        return lambda column: local.to_utc(column.cast(pa.timestamp("ms")).cast(NAIVE))
    if pa.types.is_null(kind):
        return lambda column: column.cast(UTC)
    raise TypeError(f"a column of type {kind} holds no times; expected text, numbers or timestamps")


@frozen
class LocalTime:
    """How times without a zone are read."""

    zone: str
    fold: Fold

    def to_utc(self, naive: Any) -> Any:
        """NULL for those that have no one answer."""
        if self.zone == "reject":
            return pa.nulls(len(naive), UTC)
        if self.zone == "UTC":
            return naive.cast(UTC)
        first, last = (pc.assume_timezone(naive, self.zone, ambiguous=which, nonexistent=which) for which in ("earliest", "latest"))
        clear = pc.equal(first, last)
        times = pc.if_else(clear, first, pa.scalar(None, first.type)).cast(UTC)
        if self.fold == "reject":
            return times
        odd = pc.invert(clear).fill_null(False)
        return pc.replace_with_mask(times, odd, self._by_neighbour(naive.filter(odd)))

    def _by_neighbour(self, naive: Any) -> Any:
        """With the offset of a day before or after, where the clocks are not changed again; as PEP 495 has it for a fold of 0 and 1."""
        away = pa.scalar(DAY_OF_MICROS if self.fold == "after" else -DAY_OF_MICROS, pa.duration("us"))
        return pc.subtract(pc.assume_timezone(pc.add(naive, away), self.zone, ambiguous="earliest", nonexistent="earliest").cast(UTC), away)


def _within_span(times: pa.Array[Any]) -> Any:
    micros = times.cast(pa.int64())
    return pc.if_else(_between(micros, SPAN), times, pa.scalar(None, UTC))


def _between(numbers: pa.Array[Any], bounds: tuple[float, float]) -> Any:
    ends: list[Any] = [math.ceil(bounds[0]), math.floor(bounds[1])] if pa.types.is_integer(numbers.type) else [float(one) for one in bounds]
    low, high = (pa.scalar(end, numbers.type) for end in ends)
    return pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, high))


# -- text --------------------------------------------------------------------------------------------------------------

DAY = r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
LEAP_YEAR = r"(?:[12]\d(?:0[48]|[2468][048]|[13579][26])|(?:1[26]|2[048])00)"
DATE = rf"(?:[12]\d{{3}}-{DAY}|{LEAP_YEAR}-02-29)"
HOUR = r"(?:[01]\d|2[0-3])"
CLOCK = rf"{HOUR}(?::[0-5]\d(?::[0-5]\d(?:\.\d{{1,6}})?)?)?"
ZONE = rf"(?:Z|[+-]{HOUR}(?::?[0-5]\d)?)"
FRACTION = r"(:\d\d)[.,](\d{1,6})\d*(Z|[+-][\d:]+)?$"  # Arrow wants a point, and no digits after the microseconds


def _from_text(column: pa.Array[Any], local: LocalTime, unit: Unit) -> Any:
    """A column of one form, which its first text tells, is one cast; only when some row does not fit are rows told apart by form."""
    first = column.drop_null().slice(0, 1)
    try:
        if not len(first) or pc.match_substring_regex(first, rf"[T ]{CLOCK}{ZONE}$")[0].as_py():
            return column.cast(UTC)
        return local.to_utc(column.cast(NAIVE))
    except pa.ArrowInvalid:
        times = _from_mixed_text(column, local, unit)
    odd = pc.and_(pc.is_null(times), pc.is_valid(column))
    tidy = pc.replace_substring_regex(pc.utf8_trim_whitespace(column.filter(odd)), FRACTION, r"\1.\2\3")
    return pc.replace_with_mask(times, odd, _from_mixed_text(tidy, local, unit))


def _from_mixed_text(text: Any, local: LocalTime, unit: Unit) -> Any:
    forms: list[tuple[str, Callable[[Any], Any]]] = [  # a match promises that the cast succeeds
        (rf"^{DATE}[T ]{CLOCK}{ZONE}$", lambda rows: rows.cast(UTC)),
        (rf"^{DATE}(?:[T ]{CLOCK})?$", lambda rows: local.to_utc(rows.cast(NAIVE))),
        (r"^-?[0-8]?\d{1,18}$", lambda rows: _from_numbers(rows.cast(pa.int64()), unit)),
        (r"^-?\d{1,18}\.\d+$", lambda rows: _from_numbers(rows.cast(pa.float64()), unit)),
    ]
    micros, known, left = np.zeros(len(text), np.int64), np.zeros(len(text), np.bool_), np.arange(len(text))
    for form, read in forms:
        fits = pc.match_substring_regex(text, form).fill_null(False)
        rows, times = left[np.asarray(fits)], read(text.filter(fits))
        micros[rows], known[rows] = times.cast(pa.int64()).fill_null(0), times.is_valid()
        text, left = text.filter(pc.invert(fits)), left[~np.asarray(fits)]
    return pa.array(micros, mask=~known).cast(UTC)


# -- numbers and timestamps --------------------------------------------------------------------------------------------


def _from_numbers(numbers: pa.Array[Any], unit: Unit) -> Any:
    """Whole numbers stay whole, so that their microseconds are exact; the sub-second part of other numbers is rounded."""
    whole = pa.types.is_integer(numbers.type)
    if numbers.type == pa.uint64():  # what does not fit is far beyond any time
        numbers = pc.if_else(pc.less(numbers, pa.scalar(2**63, pa.uint64())), numbers, pa.scalar(None, pa.uint64()))
    numbers = numbers.cast(pa.int64() if whole else pa.float64())
    times = pa.nulls(len(numbers), pa.int64())
    for name in _possible(numbers) if unit == "auto" else [unit]:
        bounds = _bounds(name, PLAUSIBLE if unit == "auto" else SPAN)
        fitting = pc.if_else(_between(numbers, bounds), numbers, pa.scalar(None, numbers.type))
        if name == "julian":
            found = _micros_of_days(fitting)
        else:
            found = (_micros if whole else _rounded_micros)(fitting, PER_SECOND[name])
        times = pc.coalesce(times, found)
    return times.cast(UTC)


def _possible(numbers: pa.Array[Any]) -> list[str]:
    """The units that a plausible time among these numbers could be in; mostly one."""
    extent: Any = pc.min_max(numbers)
    least, most = extent["min"].as_py(), extent["max"].as_py()
    if least is None:
        return []
    return [unit for unit, (low, high) in plausible().items() if low <= most and least <= high]


def plausible() -> dict[str, tuple[float, float]]:
    """For each unit the numbers from which to which a time is told by its size; no number is in two of them."""
    return {unit: _bounds(unit, PLAUSIBLE) for unit in (*PER_SECOND, "julian")}


def _bounds(unit: str, micros: tuple[int, int]) -> tuple[float, float]:
    """The numbers of a unit between two times in microseconds."""
    if unit == "julian":
        return micros[0] / 86_400e6 + JULIAN_1970, micros[1] / 86_400e6 + JULIAN_1970
    return micros[0] * PER_SECOND[unit] // 10**6, micros[1] * PER_SECOND[unit] // 10**6


def _micros_of_days(days: pa.Array[Any]) -> Any:
    """Of Julian days, to the millisecond as SQLite: a double tells 40 us apart, so the digits after that are not what was written."""
    since = pc.subtract(days.cast(pa.float64()), JULIAN_1970)  # exact, as both numbers are near each other
    return pc.multiply(pc.round(pc.multiply(since, 86_400_000.0)).cast(pa.int64()), 1000)


def _micros(numbers: pa.Array[Any], scale: int) -> Any:
    if scale <= 10**6:
        return pc.multiply(numbers, 10**6 // scale)
    down = numbers.fill_null(0).to_numpy() // (scale // 10**6)  # Arrow divides towards zero, which is up before 1970
    return pc.if_else(numbers.is_valid(), pa.array(down), pa.scalar(None, pa.int64()))


def _rounded_micros(numbers: pa.Array[Any], scale: int) -> Any:
    return pc.round(pc.divide(pc.multiply(numbers, 1e6), float(scale)), round_mode="half_to_even").cast(pa.int64())


def _from_timestamps(column: Any, local: LocalTime) -> Any:
    times = _from_numbers(column.cast(pa.int64()), column.type.unit)
    return times if column.type.tz else local.to_utc(times.cast(NAIVE))
