"""Who sent what when: numbers for sensors, late rows, the watermark, and whom to forget.

A sensor is forgotten when the watermark, the newest time of all rows, has moved by `forget_after_s` since its last row came. Its next
row is then a `fresh` one, as if the sensor were new. This goes by rows, not by batches: whether a sensor that is due to be forgotten
has been removed from memory already makes no difference.
"""

from __future__ import annotations

import numpy as np
from attrs import define, field, frozen

from lakeward.grouping import NEVER, Array, Key, running_maximum, starts
from lakeward_plugins.transforms.emergency.memory import grown

NOWHERE = -1
ARRAYS = ("newest", "newest_row", "seen", "heard", "label")


@frozen(eq=False)
class Arrivals:
    """Rows of a batch that are in time, sorted by sensor, then as they came."""

    places: Array
    """Where they stand in the batch."""
    keys: Array
    micros: Array
    ids: Array
    labels: Array
    lives: Array
    """How many fresh rows of its sensor stand in the batch up to that row."""
    late: Array
    """Places of the rows that are too late."""
    watermarks: Array
    """By place: the newest time of all rows up to that one."""


@define(eq=False)
class Numbered:
    """Distinct tuples, numbered in the order of their coming."""

    names: list[Key] = field(factory=list)
    _numbers: dict[Key, int] = field(factory=dict)

    def of(self, names: list[Key]) -> Array:
        """The number of each."""
        numbers = self._numbers
        found = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
        self.names += [name for name in names if numbers[name] >= len(self.names)] if len(numbers) > len(self.names) else []
        return found

    def become(self, names: list[Key]) -> None:
        """These and no others."""
        self.names, self._numbers = names, {name: number for number, name in enumerate(names)}


@define(eq=False)
class Sensors:
    """All sensors that are remembered, by number."""

    forget: int
    """Microseconds."""
    keys: Numbered = field(factory=Numbered)
    labels: Numbered = field(factory=Numbered)
    """Values of the columns that rows are grouped by for quorums and floods."""
    newest: Array = field(factory=lambda: np.zeros(0, np.int64))
    newest_row: Array = field(factory=lambda: np.zeros(0, np.int64))
    seen: Array = field(factory=lambda: np.zeros(0, np.int64))
    """The watermark when the last row of the sensor had come."""
    heard: Array = field(factory=lambda: np.zeros(0, np.int64))
    """The same of its newest row: one that was in time."""
    label: Array = field(factory=lambda: np.zeros(0, np.int64))
    watermark: int = NEVER

    def arrive(self, keys: Array, micros: Array, ids: Array, labels: Array, usable: Array) -> Arrivals:
        """Sort the rows of a batch; `keys` and `labels` are numbers. Nothing is remembered before `remember`."""
        self._grow()
        watermarks = np.maximum.accumulate(np.maximum(np.where(usable, micros, NEVER), self.watermark))
        order = np.argsort(keys.astype(np.uint16) if len(self.newest) < 2**16 else keys, kind="stable")  # 16 bits sort much faster
        order = order if usable.all() else order[usable[order]]
        key, when, mark = keys[order], micros[order], watermarks[order]
        first = starts(key)
        last_mark = np.where(first, self.seen[key], np.roll(mark, 1))
        fresh = mark - self.forget > last_mark
        lives = np.zeros(len(order), np.int64)
        if fresh.any():
            count = np.cumsum(fresh)
            lives = count - np.repeat((count - fresh)[first], np.diff(np.append(np.flatnonzero(first), len(key))))
        late = self._late(key, when, first, fresh)
        kept = np.flatnonzero(~late) if late.any() else slice(None)
        places = order[kept]
        return Arrivals(places, key[kept], when[kept], ids[places], labels[places], lives[kept], np.sort(order[late]), watermarks)

    def _late(self, keys: Array, micros: Array, first: Array, fresh: Array) -> Array:
        """Which rows are older than one of their sensor before them."""
        begins = first | fresh
        floor = np.where(first & ~fresh, np.maximum(micros, self.newest[keys]), micros)
        if not (floor[1:] < floor[:-1])[~begins[1:]].any():
            return np.asarray(micros < floor)
        return np.asarray(micros < running_maximum(np.cumsum(begins), floor))

    def remember(self, rows: Arrivals, keys: Array, usable: Array) -> None:
        """These rows have come."""
        ends = last_places(rows.keys)
        which = rows.keys[ends]
        self.newest[which], self.newest_row[which], self.label[which] = rows.micros[ends], rows.ids[ends], rows.labels[ends]
        self.heard[which] = rows.watermarks[rows.places[ends]]
        places = np.flatnonzero(usable)
        if len(places):
            self.watermark = int(rows.watermarks[-1])
            self.seen[keys[places]] = rows.watermarks[places]  # of several rows the last one stays

    def _grow(self) -> None:
        count = len(self.keys.names)
        self.newest, self.seen, self.heard = (grown(array, count, NEVER) for array in (self.newest, self.seen, self.heard))
        self.newest_row, self.label = grown(self.newest_row, count, NOWHERE), grown(self.label, count, NOWHERE)

    def due_to_go(self, active: Array) -> Array | None:
        """Which sensors stay, when so many others may be forgotten that it is worth the while; those with alerts stay always."""
        go = (self.seen + self.forget < self.watermark) & ~active
        return ~go if 8 * np.count_nonzero(go) > len(go) else None

    def keep(self, stay: Array) -> None:
        """Forget all others, and the labels that nobody has any more."""
        self.keys.become([self.keys.names[number] for number in np.flatnonzero(stay).tolist()])
        for name in ARRAYS:
            setattr(self, name, getattr(self, name)[stay])
        used = np.unique(self.label[self.label != NOWHERE])
        self.labels.become([self.labels.names[number] for number in used.tolist()])
        self.label = np.where(self.label == NOWHERE, NOWHERE, np.searchsorted(used, self.label))


def last_places(groups: Array) -> Array:
    """Where the last row of each group stands; groups must be sorted."""
    return np.flatnonzero(np.append(groups[1:] != groups[:-1], True)) if len(groups) else np.zeros(0, np.int64)
