"""Windows on a grid: which of them a moment is in, and from when to when they are.

A grid counts its windows from the first that a plausible time can be in; windows are [start, end), in microseconds of UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward import OptionError, option
from lakeward.grouping import MICROSECOND, Array

CENTURY = 36525 * 86400  # seconds; sums of longer ones would not fit into 64 bits of microseconds
DAY = 86_400_000_000
MOST_WINDOWS = 10_000  # that a row can be in
CALENDAR = re.compile(r"(\d+)\s*(w|week|mo|month|q|quarter|y|year)s?")
MONTHS = {"mo": 1, "month": 1, "q": 3, "quarter": 3, "y": 12, "year": 12}


@frozen
class Shape:
    """What a window is. Each kind looks at its own keys: `every` is of hopping windows, `gap` of sessions, `tz` of calendar windows."""

    kind: Literal["tumbling", "hopping", "session", "calendar"] = option("tumbling", help="How time is cut.")
    size: timedelta | str = option(
        timedelta(minutes=5), help="Length of a window; of calendar windows also 1w, 1month, 1quarter or 1year.", maximum=CENTURY
    )
    every: timedelta | None = option(None, help="From the start of a hopping window to that of the next.", maximum=CENTURY)
    gap: timedelta | None = option(None, help="A pause as long as this or longer ends a session.", maximum=CENTURY)
    tz: str = option("UTC", help="Timezone of calendar windows and of the keys `hour` and `day`.")
    offset: timedelta = option(timedelta(0), help="Shifts the start of all windows.", maximum=CENTURY)

    @property
    def name(self) -> str:
        """What makes its windows others than those of another shape: a part of their identity."""
        if self.kind == "session":
            return f"session {self.gap}"
        zone = f" {self.tz}" if self.kind == "calendar" else ""
        every = f" every {self.every}" if self.kind == "hopping" else ""
        return f"{self.kind} {self.size}{every} offset {self.offset}{zone}"


class Grid(Protocol):
    """Windows with numbers from 0 to `count`."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def overlap(self) -> int:
        """In how many windows a moment can be."""

    @property
    def longest(self) -> int:
        """Microseconds of the longest window."""

    def newest(self, micros: Array) -> Array:
        """The number of the last window that has begun. A moment is in no window with a greater one."""

    def starts(self, numbers: Array) -> Array:
        """When they begin."""

    def ends(self, numbers: Array) -> Array:
        """When they end, which is in the next window already."""


@frozen(eq=False)
class Fixed:
    """Windows of one length, aligned to 1970 in UTC plus an offset."""

    longest: int
    every: int
    zero: int
    count: int
    overlap: int

    @classmethod
    def over(cls, low: int, high: int, size: int, every: int, offset: int) -> Fixed:
        """For all times from `low` to `high`; also windows that begin before `low`."""
        zero = (low - size - offset) // every * every + offset
        return cls(size, every, zero, (high - zero) // every + 1, -(-size // every))

    def newest(self, micros: Array) -> Array:  # noqa: D102
        return np.asarray((micros - self.zero) // self.every)

    def starts(self, numbers: Array) -> Array:  # noqa: D102
        return np.asarray(self.zero + numbers * self.every)

    def ends(self, numbers: Array) -> Array:  # noqa: D102
        return self.starts(numbers) + self.longest


@frozen(eq=False)
class Calendar:
    """Days, or a number of them, weeks, months or years from local midnight on; or parts of a day, counted from local midnight.

    A day has 23, 24 or 25 hours. Parts of a day are of real time; the last one ends at midnight, so it may be shorter.
    """

    edges: Array
    """Starts of the days, weeks, ...; the last is only an end."""
    part: int
    parts: int
    longest: int
    count: int
    overlap: int = 1

    @classmethod
    def over(cls, low: int, high: int, size: timedelta | str, tz: str, offset: int) -> Calendar:
        """For all times from `low` to `high`."""
        starts, part = _local_starts(low - offset, high - offset, size)
        naive = pa.array(starts.astype("datetime64[us]").astype(np.int64) + offset).cast(pa.timestamp("us"))
        # midnight may come twice or, as clocks are put forward at that hour, never: the first moment of the day then
        edges = pc.assume_timezone(naive, tz, ambiguous="earliest", nonexistent="latest").cast(pa.int64()).to_numpy()  # type: ignore[call-overload]
        longest = int(np.diff(edges).max())
        part = part or longest
        parts = -(-longest // part)
        return cls(edges, part, parts, min(part, longest), (len(edges) - 1) * parts)

    def newest(self, micros: Array) -> Array:  # noqa: D102
        whole = np.searchsorted(self.edges, micros, "right") - 1
        return np.asarray(whole * self.parts + (micros - self.edges[whole]) // self.part)

    def starts(self, numbers: Array) -> Array:  # noqa: D102
        whole, part = np.divmod(numbers, self.parts)
        return np.asarray(self.edges[whole] + part * self.part)

    def ends(self, numbers: Array) -> Array:  # noqa: D102
        return np.asarray(np.minimum(self.starts(numbers) + self.part, self.edges[numbers // self.parts + 1]))


def _local_starts(low: int, high: int, size: timedelta | str) -> tuple[Array, int]:
    """Local times at which days, weeks or months begin, from before `low` to after `high`, and the length of a part of a day or 0."""
    first, last = (np.datetime64(moment, "us").astype("datetime64[D]") for moment in (low - 2 * DAY, high + 2 * DAY))
    if isinstance(size, timedelta):
        micros = size // MICROSECOND
        if micros < DAY:
            return _every(first, last, 1, 0), micros
        if micros % DAY:
            raise OptionError("window.size", "expected whole days, weeks, months, quarters or years, or less than a day")
        return _every(first, last, micros // DAY, 0), 0
    match = CALENDAR.fullmatch(size.strip())
    if not match or not int(match[1]):
        raise OptionError("window.size", f"expected a size such as 1h, 1d, 1w, 1month, 1quarter or 1year, got {size!r}")
    if match[2].startswith("w"):
        return _every(first, last, 7 * int(match[1]), 4), 0  # 1970-01-05 was a Monday
    months = int(match[1]) * MONTHS[match[2]]
    return _every(first.astype("datetime64[M]"), last.astype("datetime64[M]"), months, 0), 0


def _every(first: np.datetime64, last: np.datetime64, step: int, zero: int) -> Array:
    low, high = ((int(moment.astype(np.int64)) - zero) // step for moment in (first, last))
    return np.asarray(np.arange(low, high + 2) * step + zero).astype(first.dtype)


def grid_of(shape: Shape, low: int, high: int) -> Grid | None:
    """The grid of the shape, None for sessions. Raises `OptionError` for what cannot be."""
    for name in ("size", "every", "gap"):
        value = getattr(shape, name)
        if isinstance(value, timedelta) and value < timedelta(milliseconds=1):  # so that slots fit into 63 bits
            raise OptionError(f"window.{name}", f"expected at least 1ms, got {value.total_seconds():g}s")
    needed = {"hopping": "every", "session": "gap"}.get(shape.kind)
    if needed and getattr(shape, needed) is None:
        raise OptionError(f"window.{needed}", f"{shape.kind} windows need it, such as {needed}: 1m")
    zone(shape.tz)
    offset = shape.offset // MICROSECOND
    if shape.kind == "session":
        return None
    if shape.kind == "calendar":
        return Calendar.over(low, high, shape.size, shape.tz, offset)
    if isinstance(shape.size, str):
        raise OptionError("window.size", f"expected a duration such as 5m, got {shape.size!r}; other lengths are for `kind: calendar`")
    every = shape.every if shape.kind == "hopping" and shape.every else shape.size
    if every > shape.size:
        raise OptionError("window.every", "rows between two windows would be in none; expected no more than size")
    if (overlap := -(-shape.size // every)) > MOST_WINDOWS:
        raise OptionError(
            "window.every", f"each row would be in {overlap:,} windows, at most {MOST_WINDOWS:,} are possible; make it longer"
        )
    return Fixed.over(low, high, shape.size // MICROSECOND, every // MICROSECOND, offset)


def zone(tz: str) -> None:
    """Raises `OptionError` when there is no such timezone."""
    try:
        pc.assume_timezone(pa.array([0], pa.timestamp("us")), tz)
    except pa.ArrowInvalid as error:
        raise OptionError("window.tz", f"no timezone {tz!r}; expected UTC, or a name such as Europe/Berlin") from error


DERIVED: dict[str, Callable[[int, int, str], Calendar]] = {
    "hour": lambda low, high, tz: Calendar.over(low, high, timedelta(hours=1), tz, 0),
    "day": lambda low, high, tz: Calendar.over(low, high, timedelta(days=1), tz, 0),
}
"""Group keys that come from the time of a row when it has no column of that name, from the finest on."""
