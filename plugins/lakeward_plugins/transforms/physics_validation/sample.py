"""The rows of a batch as rules see them: readings in their units, times, and the rows of each key one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import define, field, frozen

from lakeward.grouping import NEVER, Array, running_maximum, starts
from lakeward_plugins.transforms.physics_validation.expression import Expression
from lakeward_plugins.transforms.physics_validation.fields import Fields
from lakeward_plugins.transforms.physics_validation.readings import Readings
from lakeward_plugins.transforms.physics_validation.rule import Rule

Memory = dict[str, Array]
"""What a temporal rule remembers of each key, as arrays."""


@frozen(eq=False)
class Series:
    """The rows that have a time and are not late, key by key in order of arrival. All arrays but `ends` are of one length."""

    rows: Array
    """Place in the batch."""
    keys: Array
    """Number of the key, ascending."""
    times: Array
    """Microseconds, ascending within a key."""
    begins: Array
    """Place of the first row of the key."""
    leaving: Array
    """False for the newest row of each key while it waits for the next one."""
    ends: Array
    """Place of the last row of each key that leaves; of keys that have one."""
    count: int
    """How many keys there ever were."""

    @classmethod
    def of(cls, keys: Array, times: Array, usable: Array, newest: Array, wait: bool) -> Series:
        """From the number of the key and the time of each row, and the newest time of each key so far."""
        rows = np.argsort(keys.astype(np.uint16) if len(newest) < 2**16 else keys, kind="stable")  # 16 bits sort much faster
        if not usable.all():
            rows = rows[usable[rows]]
        keys, times = keys[rows], times[rows]
        before = np.where(starts(keys), newest[keys], np.concatenate([[NEVER], times[:-1]])[: len(times)])
        if (times < before).any():
            on_time = times >= np.maximum(running_maximum(keys, times), newest[keys])
            rows, keys, times = rows[on_time], keys[on_time], times[on_time]
        first = starts(keys)
        begins = np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0))
        last = np.flatnonzero(np.append(first[1:], True)[: len(keys)])
        leaving = np.ones(len(keys), np.bool_)
        if wait:
            leaving[last] = False
        ends = last - wait
        return cls(rows, keys, times, begins, leaving, ends[ends >= begins[last]], len(newest))

    def previous(self, wanted: Array) -> Array:
        """For each row the place of the one before it in its key, among those wanted; -1 when it is in an earlier batch."""
        newest = np.maximum.accumulate(np.where(wanted, np.arange(len(wanted)), -1))
        before = np.concatenate([[-1], newest[:-1]])[: len(wanted)]
        return np.where(before >= self.begins, before, -1)


@define(eq=False)
class Sample:
    """What a rule asks for."""

    readings: Readings
    fields: Fields
    times: Array
    """NEVER where a row has no usable time."""
    series: Series | None = None
    """When there are temporal rules."""
    _views: dict[str, Array] = field(init=False, factory=dict)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self.readings.rows.num_rows)

    def column(self, name: str) -> str:
        """The column of a field."""
        return self.fields.column(name, self.readings.rows.schema.names)

    def numbers(self, name: str, rule: Rule | None = None) -> Array:
        """A field in the unit of a rule, or for expressions in that of the field; NaN where missing."""
        column = self.column(name)
        if name in self.fields.constants and column not in self.readings.rows.schema.names:
            return np.full(self.count, self.fields.constants[name])
        return self.readings.numbers(column, self.fields.conversion(name, rule))

    def truth(self, expression: Expression) -> Any:
        """For each row 1 true, 0 false, -1 unknown."""
        columns: Mapping[str, Array] = {name: self.numbers(name) for name in expression.fields}
        return expression.evaluate(columns, self.count)

    def asked(self, rule: Rule) -> Array | None:
        """The rows for which `when` is true; None for all."""
        if rule.guard is None or rule.when is None:
            return None
        if rule.when not in self._views:
            self._views[rule.when] = np.asarray(self.truth(rule.guard) == 1)
        return self._views[rule.when]

    def judged(self, rule: Rule) -> tuple[str, ...]:
        """The columns that get the flag of a rule; a constant has none."""
        names = [self.column(name) for name in rule.judged()]
        return tuple(dict.fromkeys(name for name in names if name in self.readings.rows.schema.names))


def series_of(sample: Sample) -> Series:
    """Of a sample that temporal rules judge."""
    assert sample.series is not None  # noqa: S101  # for mypy; the validator makes one for them
    return sample.series
