"""What readings say: which are beyond a limit, change too fast, or have a value. Those that say nothing are left out and counted.

NULL, NaN and infinity say nothing, nor does a reading whose flag in the column `qc_<field>` is among `exclude_flags`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward.grouping import NEVER, Array, plain, starts
from lakeward_plugins.transforms.emergency.machine import Machine, Readings
from lakeward_plugins.transforms.emergency.memory import BACK, BETWEEN, BEYOND, QUIET
from lakeward_plugins.transforms.emergency.sensors import Arrivals, Sensors, last_places


@frozen(eq=False)
class Given:
    """A batch, and what all rules ask of it."""

    batch: pa.RecordBatch
    rows: Arrivals
    sensors: Sensors
    """As they were before the batch."""
    exclude_flags: list[int]
    resets: Array
    """By place: somebody resets latched alerts. Empty when nobody does."""


class Judge(Protocol):
    """How the alerts of one rule come about."""

    @property
    def field(self) -> str:
        """The column that it looks at; empty for none."""

    @property
    def sign(self) -> float:
        """-1 when lower is worse: the values of events are turned, so that greater is worse."""

    def judge(self, given: Given, records: Array) -> tuple[Array, int]:
        """What happened, and how many readings said nothing. The records are those at the end afterwards."""


@frozen(eq=False)
class Limit:
    """A field is beyond a limit."""

    field: str
    sign: float
    deadband: float
    machine: Machine

    def judge(self, given: Given, records: Array) -> tuple[Array, int]:
        """Each reading stands for itself."""
        values, silent = numbers_of(given, self.field)
        values = values * self.sign
        return _judged(given, self.machine, values, _levels(values, self.machine, self.deadband), records), silent


@frozen(eq=False)
class Rate:
    """A field changes too fast, from one reading to the next that is at least `least` microseconds later.

    So a change is not hidden by readings that follow each other fast. Readings more than `most` apart are not compared.
    """

    field: str
    sign: float
    deadband: float
    machine: Machine
    least: int
    most: int

    def judge(self, given: Given, records: Array) -> tuple[Array, int]:
        """What is judged is the change per second."""
        rows = given.rows
        readings, silent = numbers_of(given, self.field)
        held = np.flatnonzero(~np.isnan(readings)) if silent else np.arange(len(readings))
        chosen = held[self._far_enough(rows.keys[held], rows.micros[held], rows.lives[held], records)]
        keys, micros, lives, values = rows.keys[chosen], rows.micros[chosen], rows.lives[chosen], readings[chosen]
        first, old = starts(keys), records[keys]
        new_life = np.where(first, lives > 0, lives != np.roll(lives, 1))
        since = np.where(new_life, NEVER, np.where(first, old["before"], np.roll(micros, 1)))
        with np.errstate(over="ignore"):  # from one end of the numbers to the other is infinitely far, and beyond any limit
            change, gap = values - np.where(first, old["reading"], np.roll(values, 1)), micros - since
        good = gap <= self.most
        rates = np.full(len(readings), np.nan)
        with np.errstate(over="ignore"):
            rates[chosen[good]] = change[good] / (gap[good] / 1e6) * self.sign
        ends, newest = last_places(keys), newest_lives(rows, len(records))
        records["before"][newest > 0] = NEVER
        ends = ends[lives[ends] == newest[keys[ends]]]
        records["before"][keys[ends]], records["reading"][keys[ends]] = micros[ends], values[ends]
        return _judged(given, self.machine, rates, _levels(rates, self.machine, self.deadband), records), silent

    def _far_enough(self, keys: Array, micros: Array, lives: Array, records: Array) -> Array:
        """Which readings are compared: each is at least `least` after the one chosen before it."""
        first = starts(keys)
        begins = first | starts(lives)
        before = np.where(first & (lives == 0), records["before"][keys], NEVER)
        if (micros - np.where(begins, before, np.roll(micros, 1)) >= self.least).all():
            return np.arange(len(keys))
        chosen: list[int] = []
        bounds = [*np.flatnonzero(begins).tolist(), len(keys)]
        for start, end in pairwise(bounds):
            times = micros[start:end]
            following = (start + np.searchsorted(times, times + self.least)).tolist()
            place = start + int(np.searchsorted(times, before[start] + self.least))
            while place < end:
                chosen.append(place)
                place = following[place - start]
        return np.array(chosen, np.int64)


@frozen(eq=False)
class Equal:
    """A field has a value."""

    field: str
    value: bool | float | str
    machine: Machine
    sign: float = 1.0

    def judge(self, given: Given, records: Array) -> tuple[Array, int]:
        """Any other value is clear; there is nothing between."""
        column = plain(given.batch.column(self.field))
        if not isinstance(self.value, str) and not pa.types.is_boolean(column.type):
            values, silent = numbers_of(given, self.field)
            same = values == float(self.value)
        else:
            column = column.cast(pa.bool_() if isinstance(self.value, bool) else pa.large_string())
            equal = pc.equal(column, pa.scalar(self.value, column.type)).cast(pa.int8()).cast(pa.float64())
            values = _flagged(given, self.field, equal.to_numpy(zero_copy_only=False))[given.rows.places]
            same, silent = values == 1, int(np.isnan(values).sum())
        levels = np.where(np.isnan(values), QUIET, np.where(same, BEYOND, BACK))
        return _judged(given, self.machine, values, levels, records), silent


def numbers_of(given: Given, name: str) -> tuple[Array, int]:
    """The readings of a column for the rows in time, NaN for those that say nothing; and how many those are."""
    values = plain(given.batch.column(name)).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    values = _flagged(given, name, values)[given.rows.places]
    finite = np.isfinite(values)
    silent = len(values) - int(np.count_nonzero(finite))
    return (np.where(finite, values, np.nan) if silent else values), silent


def _flagged(given: Given, name: str, values: Array) -> Array:
    flags = f"qc_{name}"
    if not given.exclude_flags or flags not in given.batch.schema.names:
        return values
    numbers = pc.cast(plain(given.batch.column(flags)), pa.int64(), safe=False)  # NaN is no flag
    bad = pc.is_in(numbers, value_set=pa.array(given.exclude_flags, pa.int64()))
    return np.where(bad.to_numpy(zero_copy_only=False), np.nan, values)


def _levels(values: Array, machine: Machine, deadband: float) -> Array:
    limit = machine.limits[0]
    levels = np.full(len(values), BETWEEN, np.int8)
    levels[values > limit] = BEYOND
    levels[values <= limit - deadband] = BACK
    levels[np.isnan(values)] = QUIET
    return levels


def _judged(given: Given, machine: Machine, values: Array, levels: Array, records: Array) -> Array:
    """Give the machine those of the rows in time that say something or reset alerts."""
    rows = given.rows
    resets = given.resets[rows.places] if machine.latch and len(given.resets) else np.zeros(len(rows.places), np.bool_)
    readings = Readings(rows.places, rows.keys, rows.micros, rows.ids, rows.labels, rows.lives, levels, values, resets)
    says = (levels != QUIET) | resets
    if not says.all():
        readings = readings.where(says)
    events = machine.judge(readings, records)
    if rows.lives.any():  # who was pending, and then for so long not there as to be forgotten, is not pending
        newest, judged = newest_lives(rows, len(records)), np.zeros(len(records), np.int64)
        judged[readings.keys] = readings.lives
        records["level"][(judged < newest) & ~records["active"]] = QUIET
    return events


def newest_lives(rows: Arrivals, count: int) -> Array:
    """By sensor: its newest life in the batch."""
    newest = np.zeros(count, np.int64)
    newest[rows.keys] = rows.lives  # of several rows the last one stays
    return newest
