"""What is known of each window: how many rows it has, and a ledger for each kind of function.

Parts of windows are merged by `plus` and `moved`; merging is associative and commutative, up to the last digits of sums.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from attrs import define, evolve

from lakeward.grouping import LETTERS, Array, starts
from lakeward_plugins.transforms.window.fields import Fields
from lakeward_plugins.transforms.window.functions import Plan
from lakeward_plugins.transforms.window.picks import Picks
from lakeward_plugins.transforms.window.readings import Readings
from lakeward_plugins.transforms.window.sums import Sums
from lakeward_plugins.transforms.window.tally import Tally

Dense = TypeVar("Dense", Sums, Picks)
"""A ledger with one entry for each window."""


@define(eq=False)
class Table:
    """Windows, ascending by slot."""

    slots: Array
    rows: Array
    updates: Array
    """How many of the rows came when the window was over."""
    sums: Sums
    picks: list[Picks]
    tallies: list[Tally]
    """For quantiles, then for modes."""
    readings: list[Readings]

    @classmethod
    def nothing(cls, plan: Plan) -> Table:
        """No window yet."""
        none = np.zeros(0, np.int64)
        picks = [Picks.nothing(column.function, column.field in plan.text) for column in plan.picks()]
        tallies = [Tally.nothing("quantile") for _ in plan.fields("quantile")]
        tallies += [Tally.nothing("mode", name in plan.text) for name in plan.fields("mode")]
        readings = [Readings.nothing() for _ in plan.fields("time_weighted_mean")]
        return cls(none, none, none, Sums.nothing(len(plan.measures())), picks, tallies, readings)

    @classmethod
    def of(cls, fields: Fields, slots: Array, updates: Array | None = None) -> Table:
        """From rows, each in the window of its slot."""
        distinct, groups = np.unique(slots, return_inverse=True)
        count = len(distinct)
        tallies = []
        for values in fields.quantiles:
            here = ~np.isnan(values)
            tallies.append(Tally.of("quantile", values[here], slots[here]))
        for column in fields.modes:
            here = column.is_valid().to_numpy(zero_copy_only=False)
            present = column.drop_null()
            text = any(suits(column.type) for suits in LETTERS)
            tallies.append(Tally.of_text(present, slots[here]) if text else Tally.of("mode", present.to_numpy(), slots[here]))
        readings = []
        for values in fields.weighted:
            here = ~np.isnan(values)
            readings.append(Readings.of(values[here], fields.times[here], fields.rows[here], slots[here]))
        return cls(
            distinct,
            np.bincount(groups, minlength=count),
            np.zeros(count, np.int64) if updates is None else np.bincount(groups[updates], minlength=count),
            Sums.of(fields.measures, groups, count),
            [Picks.of(one.function, values, fields.times, fields.rows, groups, count) for one, values in fields.picks],
            tallies,
            readings,
        )

    def __len__(self) -> int:
        return len(self.slots)

    def plus(self, other: Table, exact_max: int) -> Table:
        """All of both; windows that are in both are merged. Takes the arrays of either where it can."""
        if not len(other):
            return self
        table = self._with(other) if len(self) else other
        crowded = table.slots[table.rows > exact_max]
        table.tallies = [one.plus(more, crowded, exact_max) for one, more in zip(self.tallies, other.tallies, strict=True)]
        table.readings = [one.plus(more, crowded) for one, more in zip(self.readings, other.readings, strict=True)]
        return table

    def _with(self, other: Table) -> Table:
        """All of both, but for tallies and readings."""
        place = np.searchsorted(self.slots, other.slots)
        known = np.append(self.slots, other.slots[-1:] + 1)[place] == other.slots
        table = self
        if not known.all():
            slots = np.insert(self.slots, place[~known], other.slots[~known])
            table = self.spread(np.searchsorted(slots, self.slots), slots)
        places = np.searchsorted(table.slots, other.slots)
        table.rows[places] += other.rows
        table.updates[places] += other.updates
        table.sums.put(places, table.sums.take(places).merged(other.sums))
        for pick, theirs in zip(table.picks, other.picks, strict=True):
            pick.put(places, pick.take(places).merged(theirs))
        return table

    def only(self, which: Array) -> Table:
        """Some of them."""
        places = np.flatnonzero(which)
        slots = self.slots[places]
        return Table(
            slots,
            self.rows[places],
            self.updates[places],
            self.sums.take(places),
            [pick.take(places) for pick in self.picks],
            [tally.only(slots) for tally in self.tallies],
            [readings.only(slots) for readings in self.readings],
        )

    def moved(self, slots: Array, exact_max: int) -> Table:
        """The same with new slots, one for each window; those that get the same one are merged."""
        distinct, groups = np.unique(slots, return_inverse=True)
        count = len(distinct)
        table = evolve(
            self,
            slots=distinct,
            rows=np.bincount(groups, self.rows, count).astype(np.int64),
            updates=np.bincount(groups, self.updates, count).astype(np.int64),
            sums=_folded(self.sums, groups),
            picks=[_folded(pick, groups) for pick in self.picks],
        )
        crowded = distinct[table.rows > exact_max]
        table.tallies = [one.moved(self.slots, slots).plus(one.only(slots[:0]), crowded, exact_max) for one in self.tallies]
        table.readings = [one.moved(self.slots, slots).plus(one.only(slots[:0]), crowded) for one in self.readings]
        return table

    def spread(self, places: Array, slots: Array) -> Table:
        """Among more windows, the others without a row."""
        rows, updates = np.zeros(len(slots), np.int64), np.zeros(len(slots), np.int64)
        rows[places], updates[places] = self.rows, self.updates
        sums, picks = self.sums.spread(places, len(slots)), [pick.spread(places, len(slots)) for pick in self.picks]
        return Table(slots, rows, updates, sums, picks, self.tallies, self.readings)


def _folded(ledger: Dense, groups: Array) -> Dense:
    """Entries of one group become one: neighbours are merged in pairs, and the results again."""
    order = np.argsort(groups, kind="stable")
    ledger, groups = ledger.take(order), groups[order]
    while not (first := starts(groups)).all():
        place = np.arange(len(groups))
        odd = (place - np.maximum.accumulate(np.where(first, place, 0))) % 2 == 1
        right = np.flatnonzero(odd)
        ledger.put(right - 1, ledger.take(right - 1).merged(ledger.take(right)))
        ledger, groups = ledger.take(np.flatnonzero(~odd)), groups[~odd]
    return ledger
