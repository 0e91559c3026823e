"""One alarm: what it remembers of each sensor, and what is the same for whatever it judges: identity, chatter, marks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import define, field, frozen

from lakeward.grouping import NEVER, Array, Key, starts
from lakeward_plugins.transforms.emergency.alerts import Look, identities
from lakeward_plugins.transforms.emergency.evidence import Given, Judge, newest_lives
from lakeward_plugins.transforms.emergency.memory import NOTHING, RAISE, RECORD, grown
from lakeward_plugins.transforms.emergency.sensors import Arrivals, last_places


@frozen(eq=False)
class Judged:
    """Events, and to which RAISE each of them belongs."""

    events: Array
    _order: Array
    _origin: Array
    """By place in the order: where the RAISE is, or -1 when it was in an earlier batch."""

    @classmethod
    def of(cls, events: Array) -> Judged:
        """Of events in any order."""
        order = np.lexsort((events["event"], events["place"], events["key"]))
        keys, raising = events["key"][order], events["event"][order] == RAISE
        origin = np.maximum.accumulate(np.where(raising, np.arange(len(order)), -1))
        return cls(events, order, np.where((origin >= 0) & (keys[origin] == keys), origin, -1))

    def raised(self) -> Array:
        """Places of the RAISEs, by sensor and in order."""
        return np.asarray(self._order[self._origin == np.arange(len(self._order))])

    def spread(self, name: str) -> None:
        """Give what stands in a RAISE to all that belongs to it."""
        column, known = self.events[name][self._order], self._origin >= 0
        self.events[name][self._order[known]] = column[self._origin[known]]


@define(eq=False)
class Alarm:
    """A rule at work."""

    look: Look
    judge: Judge
    raises: int
    """So many alerts ..."""
    within: int
    """... in so many microseconds are chatter."""
    records: Array = field(factory=lambda: np.zeros(0, RECORD))
    recent: Array = field(init=False)
    """When the newest alerts of each sensor were raised, ascending: one less than `raises`."""
    silent: int = 0
    """How many readings have said nothing."""

    def __attrs_post_init__(self) -> None:
        self.recent = np.full((0, self.raises - 1), NEVER, np.int64)

    @property
    def name(self) -> str:
        """The alert_type."""
        return self.look.alert_type

    def grow(self, count: int) -> None:
        """Have room for so many sensors."""
        self.records, self.recent = grown(self.records, count, NOTHING), grown(self.recent, count, NEVER)

    def keep(self, stay: Array) -> None:
        """Forget all other sensors."""
        self.records, self.recent = self.records[stay], self.recent[stay]

    def hear(self, given: Given, keys: Sequence[Key]) -> Judged:
        """What happened in a batch; nothing is marked as suppressed yet."""
        events, silent = self.judge.judge(given, self.records)
        self.silent += silent
        lives = np.zeros(len(given.rows.watermarks), np.int64)
        if self.judge.field:  # the other kind never forgets a sensor before it comes back
            lives[given.rows.places] = given.rows.lives
        judged = self.identified(events, keys, lives)
        if given.rows.lives.any():
            self._forget_raises(judged, lives, given.rows)
        return judged

    def identified(self, events: Array, keys: Sequence[Key], lives: Array) -> Judged:
        """Name all alerts, and mark those that chatter. `lives` by place."""
        judged = Judged.of(events)
        raised = judged.raised()
        if len(raised):
            events["id"][raised] = identities(self.name, events[raised], keys)
            events["chattering"][raised] = self._chatters(events[raised], lives)
        judged.spread("id")
        judged.spread("chattering")
        return judged

    def settle(self, judged: Judged) -> None:
        """What the RAISEs are marked with goes for all of the alert, in later batches too."""
        judged.spread("suppressed")
        raised = judged.events[judged.raised()]
        raised = raised[last_places(raised["key"])]
        raised = raised[self.records["active"][raised["key"]]]
        for name in ("id", "chattering", "suppressed"):
            self.records[name][raised["key"]] = raised[name]

    def _chatters(self, raised: Array, lives: Array) -> Array:
        """Of alerts sorted by sensor: which are the last of so many within the time."""
        keys, when, before = raised["key"], raised["raised"], self.raises - 1
        life = lives[raised["place"]] if len(lives) else np.zeros(len(raised), np.int64)
        first = np.flatnonzero(starts(keys))
        nth = np.arange(len(keys)) - np.repeat(first, np.diff(np.append(first, len(keys))))
        earlier = np.maximum(np.arange(len(keys)) - before, 0)
        in_batch = np.where(life[earlier] == life, when[earlier], NEVER)
        held = np.where(life == 0, self.recent[keys, np.minimum(nth, before - 1)], NEVER)
        since = np.where(nth >= before, in_batch, held)
        ends = last_places(keys)
        which, count = keys[ends], nth[ends] + 1
        columns = []
        for place in range(before):
            back = count - before + place  # among those of the batch
            old = self.recent[which, np.clip(count + place, 0, before - 1)]
            columns.append(np.where(back >= 0, when[ends - count + 1 + np.maximum(back, 0)], old))
        self.recent[which] = np.stack(columns, axis=1)
        return np.asarray((since != NEVER) & (when - since <= self.within))

    def _forget_raises(self, judged: Judged, lives: Array, rows: Arrivals) -> None:
        """Of sensors that were forgotten in the batch only the alerts since then count."""
        newest = newest_lives(rows, len(self.records)) if self.judge.field else np.zeros(len(self.records), np.int64)
        raised = judged.events[judged.raised()]
        now = lives[raised["place"]] == newest[raised["key"]]
        count = np.zeros(len(newest), np.int64)
        np.add.at(count, raised["key"][now], 1)
        places = np.arange(self.raises - 1)
        self.recent[(newest > 0)[:, None] & (places < self.raises - 1 - count[:, None])] = NEVER
